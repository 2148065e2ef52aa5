package chaos

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/varvel/varvel/internal/rig"
	"github.com/varvel/varvel/internal/testutil"
)

// The arguments of this program as the whole harness: honest, or with a worker
// that is in no run but says that it is.
const (
	argHonest = "test-honest"
	argLeak   = "test-leak"
	argLong   = "test-long" // honest, for longer than a test lasts
)

// TestMain is also every part of the harness that the tests start.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	is, err := Part(ctx, os.Args[1:])
	if !is && len(os.Args) > 2 && strings.HasPrefix(os.Args[1], "test-") {
		is, err = true, whole(ctx, os.Args[1], os.Args[2])
	}
	stop()
	if is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testutil.Main(m)
}

// whole is the harness: first outside, then in namespaces of its own.
func whole(ctx context.Context, arg, bin string) error {
	if len(os.Args) == 3 {
		return rig.Apart(ctx, true, arg, bin, ArgInside)
	}
	o := Options{Bin: bin, Only: "kill,stop", N: 2, Seed: 7, Quick: true, Output: os.Stdout, leak: arg == argLeak}
	if arg == argLong {
		o.N = 10_000
	}
	if err := o.Check(); err != nil {
		return err
	}
	return Interrupt(ctx, o)
}

// harness is this program as the whole harness.
func harness(t *testing.T, arg string) *exec.Cmd {
	t.Helper()
	testutil.RequireRoot(t)
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skipf("this kernel cannot run varveld: %v", err)
	}
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs a program that is not installed: %v", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), self, arg, programs(t))
}

// finish runs it to its end and returns what it says.
func finish(t *testing.T, cmd *exec.Cmd) (out string, code int) {
	t.Helper()
	raw, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

// programs builds varveld and varvel and returns the folder.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := testutil.Build(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHarness shows that what TestLeak sees is the leak.
func TestHarness(t *testing.T) {
	out, code := finish(t, harness(t, argHonest))
	if code != 0 || !strings.HasSuffix(out, "2 passed, 0 failed\n") || !strings.Contains(out, "leaked              0\n") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
}

// TestLeak: a harness that does not fail when something leaks would be worth
// nothing.
func TestLeak(t *testing.T) {
	out, code := finish(t, harness(t, argLeak))
	if code == 0 || !strings.Contains(out, "attempts leaked") || !strings.Contains(out, "0 passed, 2 failed\n") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	// The leaking worker has a run's label, and a leak says whose it is.
	if !strings.Contains(out, "chaos r1 alpha ") {
		t.Errorf("no leak names its run:\n%s", out)
	}
}

// TestInterrupted: after Ctrl-C, nothing is left of the harness and its node.
func TestInterrupted(t *testing.T) {
	cmd, tmp := harness(t, argLong), t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dirs, before []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !strings.Contains(lines.Text(), " passed ") || before != nil {
			continue
		}
		dirs, _ = filepath.Glob(filepath.Join(tmp, sitePrefix+"*"))
		before = processesWith(tmp)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil || len(dirs) != 1 || len(before) == 0 {
		t.Errorf("%v; before the signal it had the folders %s and the processes %s", err, dirs, before)
	}
	if left, _ := filepath.Glob(filepath.Join(tmp, "*")); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
	for _, dir := range dirs {
		if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dir)); len(left) > 0 {
			t.Errorf("left behind: %s", left)
		}
	}
	if left := processesWith(tmp); len(left) > 0 {
		t.Errorf("left behind: %s", left)
	}
}

// processesWith are those that were started with a text in their arguments.
func processesWith(text string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if line, _ := os.ReadFile(file); strings.Contains(string(line), text) {
			found = append(found, file)
		}
	}
	return found
}
