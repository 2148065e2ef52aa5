package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/creack/pty"
)

// terminal is a program at a terminal of its own, with a person before it.
type terminal struct {
	n      *node
	cmd    *exec.Cmd
	master *os.File
	cancel context.CancelFunc
	shown  chan struct{} // closed when nothing more can come

	mu  sync.Mutex
	out strings.Builder
}

// terminal starts a command at a new terminal.
func (n *node) terminal(as user, argv ...string) *terminal {
	n.t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		n.t.Fatal(err)
	}
	defer tty.Close()
	if err := os.Chown(tty.Name(), as.id, as.id); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	x := &terminal{n: n, cmd: n.command(ctx, as, argv...), master: master, cancel: cancel, shown: make(chan struct{})}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	n.fork(x.cmd)
	go x.read()
	return x
}

func (x *terminal) read() {
	defer close(x.shown)
	buf := make([]byte, 4096)
	for {
		k, err := x.master.Read(buf)
		x.mu.Lock()
		x.out.Write(buf[:k])
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// text is what was shown so far.
func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// sees waits until something is shown.
func (x *terminal) sees(text string) {
	x.n.t.Helper()
	x.n.eventually("the terminal shows "+text, func() bool { return strings.Contains(x.text(), text) })
}

// types writes to the terminal as a person does.
func (x *terminal) types(text string) {
	x.n.t.Helper()
	if _, err := x.master.WriteString(text); err != nil {
		x.n.t.Fatal(err)
	}
}

// end waits for the program and returns what it has shown.
func (x *terminal) end() result {
	x.n.t.Helper()
	defer x.cancel()
	_ = x.cmd.Wait()
	<-x.shown
	x.master.Close()
	return result{stdout: x.text(), code: x.cmd.ProcessState.ExitCode()}
}
