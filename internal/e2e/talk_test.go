package e2e

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"strings"
	"time"
)

// talk is a program under way that is spoken with, line by line.
type talk struct {
	n      *node
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string // closed at the end of what it says
	errs   lines
	cancel context.CancelFunc
}

// talk starts a program.
func (n *node) talk(as user, argv ...string) *talk {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	x := &talk{n: n, cmd: n.command(ctx, as, argv...), lines: make(chan string, 100), cancel: cancel}
	x.cmd.Stderr = &x.errs
	in, err := x.cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	x.in = in
	n.fork(x.cmd)
	go func() {
		defer close(x.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			x.lines <- s.Text()
		}
	}()
	return x
}

// says waits for a line.
func (x *talk) says(want string) {
	x.n.t.Helper()
	select {
	case line, ok := <-x.lines:
		if !ok || line != want {
			x.n.t.Fatalf("it says %q (%v), and should say %q; on its standard error: %s\n%s", line, ok, want, &x.errs, x.n.tail())
		}
	case <-time.After(2 * patience):
		x.n.t.Fatalf("it does not say %q; on its standard error: %s\n%s", want, &x.errs, x.n.tail())
	}
}

// tell sends a line.
func (x *talk) tell(line string) {
	x.n.t.Helper()
	if _, err := io.WriteString(x.in, line+"\n"); err != nil {
		x.n.t.Fatal(err)
	}
}

// ends waits for the program's end, and expects an exit status.
func (x *talk) ends(want int) {
	x.n.t.Helper()
	defer x.cancel()
	var rest []string
	for line := range x.lines {
		rest = append(rest, line)
	}
	_ = x.cmd.Wait()
	if got := x.cmd.ProcessState.ExitCode(); got != want {
		x.n.t.Errorf("exit status %d, want %d; it said %s and %s\n%s", got, want, strings.Join(rest, "; "), &x.errs, x.n.tail())
	}
}
