package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/testutil"
)

// binEnv tells the tests where the programs are that TestMain has built.
const binEnv = "VARVEL_E2E_BIN"

// longEnv asks for the long variants.
const longEnv = "VARVEL_E2E_LONG"

// TestMain is also the client that tests start inside and outside of runs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "act" {
		os.Exit(act(os.Args[2:]))
	}
	os.Exit(runTests(m))
}

// runTests builds the programs once, for all tests.
func runTests(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test skips and says why
	}
	dir, err := os.MkdirTemp("", "ve2e-bin-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = errors.Join(os.Chmod(dir, 0o755), build(dir), os.Setenv(binEnv, dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the programs could not be built:", err)
		return 1
	}
	return m.Run()
}

// build makes the programs as they are shipped, and a copy of this one that
// every user may run.
func build(dir string) error {
	if err := testutil.Build(dir); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "client"), b, 0o755)
}

// bin is a program that was built.
func bin(name string) string { return filepath.Join(os.Getenv(binEnv), name) }

// long reports whether the long variants are wanted.
func long() bool { return os.Getenv(longEnv) != "" }

// require skips a test that cannot run here, with what was checked.
func require(t *testing.T, programs ...string) {
	t.Helper()
	testutil.RequireRoot(t)
	for _, file := range []string{"/sys/kernel/btf/vmlinux", "/proc/sys/net/ipv6"} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("this kernel cannot run the test: %v", err)
		}
	}
	for _, program := range append([]string{"ip", "nsenter", "setpriv", "curl"}, programs...) {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs a program that is not installed: %v", err)
		}
	}
}

// contains fails the test unless text has every part.
func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q is missing in:\n%s", what, part, text)
		}
	}
}
