package kernel

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/workload"
)

// process is an action that goes on while the test does other things.
type process struct {
	stdin  io.WriteCloser
	stdout *bufio.Reader
	pid    int
}

// start begins it as a process of that cgroup, or of none.
func start(t testing.TB, cgroup, action string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(actor(t), append([]string{action}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if cgroup != "" { // else in none
		dir, err := os.Open(cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &process{stdin, bufio.NewReader(stdout), cmd.Process.Pid}
}

// port reads where a server says that it listens.
func (p *process) port(t testing.TB) uint16 {
	t.Helper()
	line := p.line(t)
	port, err := strconv.ParseUint(strings.TrimPrefix(line, "listening "), 10, 16)
	if err != nil {
		t.Fatalf("the server said %q", line)
	}
	return uint16(port)
}

// moveTo puts the process into another cgroup.
func (p *process) moveTo(cgroup string) error {
	return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(p.pid)), 0)
}

func (p *process) say(t testing.TB, line string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (p *process) expect(t testing.TB, want string) {
	t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("got %q, %v; want %q", line, err, want)
	}
}

func (p *process) line(t testing.TB) string {
	t.Helper()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 200 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("waited in vain for %s", what)
}

func removeCgroup(t testing.TB, path string) {
	t.Helper()
	if err := workload.Remove(path); err != nil {
		t.Error(err)
	}
}
