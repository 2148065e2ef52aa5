package peer

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/testutil"
)

// helperVariable makes the test binary connect to a socket and wait.
const helperVariable = "VARVEL_TEST_PEER_HELPER"

func TestMain(m *testing.M) {
	if path := os.Getenv(helperVariable); path != "" {
		if _, err := net.Dial("unix", path); err != nil {
			os.Exit(1)
		}
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	testutil.Main(m)
}

// connect has a process of its own connect, and returns it with our end.
func connect(t *testing.T) (*exec.Cmd, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{helperVariable + "=" + path}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return cmd, c.(*net.UnixConn)
}

func end(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

func TestPeer(t *testing.T) {
	cmd, c := connect(t)
	p, err := Of(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != cmd.Process.Pid || int(p.UID) != os.Getuid() || int(p.GID) != os.Getgid() || len(p.Groups) != len(groups) {
		t.Errorf("peer: %+v, groups %v", p, groups)
	}
	if all := p.AllGroups(); all[0] != p.GID || !p.InGroup(p.GID) || !p.InGroup(all[len(all)-1]) || p.InGroup(4242424) {
		t.Errorf("groups: %v", all)
	}
	if err := p.Alive(); err != nil {
		t.Errorf("a process that lives: %v", err)
	}
	if _, err := p.Cgroup(); err != nil {
		t.Errorf("its cgroup: %v", err)
	}
	if _, err := p.HasTerminal(); err != nil {
		t.Errorf("its terminal: %v", err)
	}
	end(t, cmd)
	for name, ask := range map[string]func() error{
		"alive":    p.Alive,
		"cgroup":   func() error { _, err := p.Cgroup(); return err },
		"terminal": func() error { _, err := p.HasTerminal(); return err },
	} {
		if err := ask(); !errors.Is(err, ErrGone) {
			t.Errorf("%s of a process that has ended: %v", name, err)
		}
	}
}

// TestGone refuses a connection whose process ended before it was asked about.
func TestGone(t *testing.T) {
	cmd, c := connect(t)
	end(t, cmd)
	p, err := Of(c)
	if err == nil {
		p.Close()
		t.Fatalf("a process that has ended is a peer: %+v", p)
	}
}

// TestStartTime holds for kernels without SO_PEERPIDFD.
func TestStartTime(t *testing.T) {
	cmd, _ := connect(t)
	start, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{PID: cmd.Process.Pid, start: start}
	if err := p.Alive(); err != nil {
		t.Errorf("the same process: %v", err)
	}
	if err := (&Peer{PID: cmd.Process.Pid, start: start + "0"}).Alive(); !errors.Is(err, ErrGone) {
		t.Errorf("another process with the number: %v", err)
	}
	end(t, cmd)
	if err := p.Alive(); !errors.Is(err, ErrGone) {
		t.Errorf("a process that has ended: %v", err)
	}
}

func TestParse(t *testing.T) {
	fields, err := parseStat([]byte("42 (a) b) S) S 1 42 42 34816 42 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 2"))
	if err != nil || fields[fieldTTY] != "34816" || fields[fieldStart] != "9876" {
		t.Errorf("stat: %v, %v", fields, err)
	}
	for _, bad := range []string{"", "42 (x", "42 (x) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) is no error", bad)
		}
	}
	groups, err := parseGroups([]byte("Name:\tx\nGroups:\t4 24 1000 \nNStgid:\t1\n"))
	if err != nil || !slices.Equal(groups, []uint32{4, 24, 1000}) {
		t.Errorf("groups: %v, %v", groups, err)
	}
	for _, bad := range []string{"", "Name: x\n", "Groups: x\n", "Groups: -1\n"} {
		if _, err := parseGroups([]byte(bad)); err == nil {
			t.Errorf("parseGroups(%q) is no error", bad)
		}
	}
}
