package launch

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a terminal with somebody before it: a pty whose other end is the
// client's terminal.
type screen struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	text   []byte // what has been shown and not been looked at
}

func newScreen(t *testing.T) *screen {
	t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := openSlave(master)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(master, true); err != nil {
		t.Fatal(err)
	}
	s := &screen{t: t, master: os.NewFile(uintptr(master), "master"), slave: os.NewFile(uintptr(slave), "slave")}
	t.Cleanup(func() { s.master.Close(); s.slave.Close() })
	return s
}

// attach makes the terminal the controlling one of a new session that cmd leads.
func (s *screen) attach(cmd *exec.Cmd) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.slave, s.slave, s.slave
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
}

// expect waits until text has been shown.
func (s *screen) expect(text string) {
	s.t.Helper()
	buf := make([]byte, 4096)
	s.master.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		if i := bytes.Index(s.text, []byte(text)); i >= 0 {
			s.text = s.text[i+len(text):]
			return
		}
		n, err := s.master.Read(buf)
		if err != nil {
			s.t.Fatalf("%q was not shown (%v); the screen has %q", text, err, s.text)
		}
		s.text = append(s.text, buf[:n]...)
	}
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) resize(rows, cols uint16) {
	s.t.Helper()
	raw, err := s.master.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = setWinsize(int(fd), Winsize{Rows: rows, Cols: cols}) })
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) state() unix.Termios {
	s.t.Helper()
	state, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return *state
}

// TestTerminal runs a shell on a terminal: size, changes of size, keys that are
// signals, job control, and the state of the terminal afterwards.
func TestTerminal(t *testing.T) {
	b := newBench(t, Plan{})
	s := newScreen(t)
	s.resize(33, 101)
	before := s.state()
	cmd := b.clientCommand(user1000(), "sh")
	cmd.Env = append(cmd.Env, "PS1=prompt> ", "QUIET=1", "TERM=vt100")
	s.attach(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.expect("$ ")
	s.press("tty; stty size; test -t 0 && echo is a terminal\n")
	s.expect("/dev/pts/0\r\n33 101\r\nis a terminal\r\n")
	s.press("tput cols\n")
	s.expect("101\r\n")
	s.press("until stty size | grep 44; do sleep 0.05; done\n")
	s.resize(44, 55)
	s.expect("44 55\r\n")
	s.press("while echo s''et; do sleep 0.05; done\n")
	s.expect("set\r\n")
	s.press("\x03") // INT
	s.expect("$ ")
	s.press("sh -c 'echo beg\"\"un; exec sleep 1000'\n")
	s.expect("begun\r\n")
	s.press("\x1a") // TSTP
	s.expect("Stopped")
	s.press("kill -KILL %1; exec sh -c 'exit 6'\n")
	if err := waitFor(cmd); err != 6 {
		t.Errorf("exit status %d, want 6", err)
	}
	if after := s.state(); after != before {
		t.Errorf("the terminal is left as %+v, was %+v", after, before)
	}
}

func waitFor(cmd *exec.Cmd) int {
	cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// TestSuspend stops a command that is not a shell from the keyboard: the client
// must stop too, with the terminal given back, and go on with it.
func TestSuspend(t *testing.T) {
	b := newBench(t, Plan{})
	s := newScreen(t)
	before := s.state()
	cmd := b.clientCommand(user1000(), "sh", "-c", "echo begun; read x; echo got $x")
	cmd.Env = append(cmd.Env, "QUIET=1")
	s.attach(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.expect("begun")
	s.press("\x1a")
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Fatalf("the client is not stopped: %v, %v", ws, err)
	}
	if now := s.state(); now != before {
		t.Errorf("while stopped, the terminal is %+v, was %+v", now, before)
	}
	if err := unix.Kill(cmd.Process.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.press("word\n")
	s.expect("got word")
	if code := waitFor(cmd); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestHangUp takes the terminal away.
func TestHangUp(t *testing.T) {
	b := newBench(t, Plan{})
	s := newScreen(t)
	cmd := b.clientCommand(user1000(), "sh", "-c", `trap "exit 0" HUP; echo begun; while :; do sleep 0.05; done`)
	s.attach(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.expect("begun")
	s.master.Close()
	cmd.Wait()
	if trouble := <-b.starter.ended; trouble != "" {
		t.Error(trouble)
	}
}

// TestPartTerminal gives a command a pipe beside a terminal.
func TestPartTerminal(t *testing.T) {
	b := newBench(t, Plan{})
	s := newScreen(t)
	cmd := b.clientCommand(user1000(), "sh", "-c", "test -t 0 || echo piped; test -t 1 && echo shown; cat")
	cmd.Env = append(cmd.Env, "QUIET=1")
	s.attach(cmd)
	cmd.Stdin = strings.NewReader("through the pipe\n")
	cmd.SysProcAttr.Ctty = 1
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.expect("piped\r\nshown\r\nthrough the pipe\r\n")
	if code := waitFor(cmd); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// TestNoOtherTerminal looks for the caller's terminal from within.
func TestNoOtherTerminal(t *testing.T) {
	b := newBench(t, Plan{})
	if r := b.bare(caller{}, "sh", "-c", "ls /dev | grep -c tty"); r.stdout == "1\n" {
		t.Skip("control: this machine has no terminals")
	}
	r := b.run(caller{}, "sh", "-c", "ls /dev/pts; ls /dev | grep -c tty; ls /dev | grep -c vda")
	if r.stdout != "ptmx\n1\n0\n" {
		t.Errorf("devices: %q", r.stdout)
	}
}
