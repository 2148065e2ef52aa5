package launch

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// buildInit builds the program of init into a fresh directory.
func buildInit(t *testing.T, flags ...string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a program of init must belong to root, which this is not")
	}
	dir = t.TempDir()
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, InitProgram)}, flags...)
	cmd := exec.Command("go", append(args, "github.com/varvel/varvel/cmd/varvel-init")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return dir
}

// otherBuild builds it with a changed comment in this package, and nothing else.
func otherBuild(t *testing.T) (dir string) {
	t.Helper()
	source, err := filepath.Abs("await.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	changed, overlay := filepath.Join(t.TempDir(), "await.go"), filepath.Join(t.TempDir(), "overlay.json")
	plan, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{changed: append(text, "\n// Changed.\n"...), overlay: plan} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return buildInit(t, "-overlay", overlay)
}

// TestFindInit looks for a program in every state that must not be used. The
// control is that the same file is taken when it is as it must be.
func TestFindInit(t *testing.T) {
	dir := buildInit(t)
	path := filepath.Join(dir, InitProgram)
	good := func() error {
		f, err := FindInit(t.Context(), dir)
		if err == nil {
			f.Close()
		}
		return err
	}
	if err := good(); err != nil {
		t.Fatal("the program of this build:", err)
	}
	mode := func(m os.FileMode) error { return os.Chmod(path, m) }
	move := func(from, to string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	tests := []struct {
		name     string
		do, undo func() error
		want     string
	}{
		{"writable by its group", func() error { return mode(0o775) }, func() error { return mode(0o755) }, "can be written"},
		{"writable by others", func() error { return mode(0o757) }, func() error { return mode(0o755) }, "can be written"},
		{"somebody else's", func() error { return os.Chown(path, 1000, 0) }, func() error { return os.Chown(path, 0, 0) }, "belongs to user 1000"},
		{"not executable", func() error { return mode(0o644) }, func() error { return mode(0o755) }, "does not say"},
		{"absent", func() error { return move(InitProgram, "x") }, func() error { return move("x", InitProgram) }, "no such file"},
		{"a link", func() error { return linkAside(dir) }, func() error { return move("x", InitProgram) }, "symbolic link"},
		{"a pipe", func() error { return pipeAside(dir) }, func() error { return move("x", InitProgram) }, "not a regular file"},
		{"another program", func() error { return scriptAside(dir, "echo of no build") }, func() error { return move("x", InitProgram) }, "another build"},
		{"one that says much", func() error { return scriptAside(dir, "exec cat /dev/zero") }, func() error { return move("x", InitProgram) }, "does not say"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.do(); err != nil {
				t.Fatal(err)
			}
			if err := good(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err := tt.undo(); err != nil {
				t.Fatal(err)
			}
			if err := good(); err != nil {
				t.Error("as it must be again:", err)
			}
		})
	}
}

func linkAside(dir string) error {
	if err := os.Rename(filepath.Join(dir, InitProgram), filepath.Join(dir, "x")); err != nil {
		return err
	}
	return os.Symlink("x", filepath.Join(dir, InitProgram))
}

func pipeAside(dir string) error {
	if err := os.Rename(filepath.Join(dir, InitProgram), filepath.Join(dir, "x")); err != nil {
		return err
	}
	return unix.Mkfifo(filepath.Join(dir, InitProgram), 0o755)
}

func scriptAside(dir, script string) error {
	if err := os.Rename(filepath.Join(dir, InitProgram), filepath.Join(dir, "x")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, InitProgram), []byte("#!/bin/sh\n"+script+"\n"), 0o755)
}

// TestOtherBuild finds an init whose sources differ in a comment.
func TestOtherBuild(t *testing.T) {
	f, err := FindInit(t.Context(), otherBuild(t))
	if err == nil {
		f.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "another build") {
		t.Errorf("got %v", err)
	}
}

// TestSmallInit runs a command by the small program, in both stages, and by this
// one.
func TestSmallInit(t *testing.T) {
	dir := buildInit(t)
	for name, want := range map[string]string{"": exeOf(t, "self"), dir: filepath.Join(dir, InitProgram)} {
		t.Run(filepath.Base(want), func(t *testing.T) {
			t.Setenv(initEnv, name)
			b := newBench(t, Plan{Pass: []string{"PATH"}})
			cmd := b.clientCommand(user1000(), "sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			pid := (<-b.starter.began).InitPID
			if got := exeOf(t, strconv.Itoa(pid)); got != want {
				t.Errorf("init is %s, not %s", got, want)
			}
			for _, fd := range readDir(t, "/proc/"+strconv.Itoa(pid)+"/fd") {
				if to, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd); to == want {
					t.Errorf("init still has its own program open, as descriptor %s", fd)
				}
			}
		})
	}
}

// TestReplacedInit installs another program while the daemon runs: no run begins
// with it.
func TestReplacedInit(t *testing.T) {
	dir := buildInit(t)
	t.Setenv(initEnv, dir)
	b := newBench(t, Plan{Pass: []string{"PATH"}})
	if r := b.run(user1000(), "true"); r.code != 0 {
		t.Fatal("before:", r)
	}
	mark := filepath.Join(t.TempDir(), "mark")
	if err := scriptAside(dir, "touch "+mark); err != nil {
		t.Fatal(err)
	}
	if r := b.run(user1000(), "true"); r.code != 0 {
		t.Errorf("the program has another name, and is the same: %+v", r)
	}
	if err := os.Remove(filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if r := b.run(user1000(), "true"); r.code != CodeRefused || !strings.Contains(r.stderr, "restart the daemon") {
		t.Errorf("the program is gone: %+v", r)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the new program was executed")
	}
	if err := exec.Command(filepath.Join(dir, InitProgram)).Run(); err != nil {
		t.Fatal("control:", err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error("control: the new program leaves no mark:", err)
	}
}

// smallInitTests are those of what init and the second stage do.
const smallInitTests = "^Test(Exit|Environment|Signals|InitKilled|Started|Refused|Acts|Able|Rights|ForeignEntry|Files|ProgramProtected|Doors|Processes|Descriptors|Terminal|Inherited)$"

// TestConfinedBySmallInit has the tests of confinement pass with the small
// program as init.
func TestConfinedBySmallInit(t *testing.T) {
	if os.Getenv(initEnv) != "" {
		t.Skip("this is that run")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", smallInitTests, "-test.v")
	cmd.Env = append(os.Environ(), initEnv+"="+buildInit(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := strings.Count(string(out), "\n--- PASS"); n < 15 {
		t.Errorf("only %d tests passed: %s", n, out)
	}
}

func exeOf(t *testing.T, pid string) string {
	t.Helper()
	path, err := os.Readlink("/proc/" + pid + "/exe")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func readDir(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
