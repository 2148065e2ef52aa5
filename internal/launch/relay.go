package launch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// relay connects the caller's terminal with the run's pty. The methods of a nil
// relay do nothing.
type relay struct {
	term   *terminal
	master *os.File
	wake   *os.File // write end of a pipe: look again whether keys may be read
	woken  int      // its read end
	output chan struct{}
	copied atomic.Int64 // bytes of output, to see when it has become quiet
	closed atomic.Bool
	input  sync.WaitGroup
}

// startRelay begins to copy. It takes the master over.
func startRelay(t *terminal, master int) (*relay, error) {
	unix.CloseOnExec(master)
	// Nobody else has the master, so its flags are ours to change.
	if err := unix.SetNonblock(master, true); err != nil {
		unix.Close(master)
		return nil, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(master)
		return nil, err
	}
	r := &relay{
		term: t, master: os.NewFile(uintptr(master), "pty"), wake: os.NewFile(uintptr(pipe[1]), "wake"),
		woken: pipe[0], output: make(chan struct{}),
	}
	if err := t.takeKeys(); err != nil {
		r.finish()
		return nil, fmt.Errorf("set up the terminal: %w", err)
	}
	go r.copyOut()
	if t.in >= 0 {
		r.input.Go(r.copyIn)
	}
	return r, nil
}

// copyOut writes what the run writes to its pty, until the last process of the
// run has let go of it (the master then reads EIO).
func (r *relay) copyOut() {
	defer close(r.output)
	buf := make([]byte, 32<<10)
	for {
		n, err := r.master.Read(buf)
		if n > 0 {
			r.copied.Add(int64(n))
			if writeAll(r.term.out, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// writeAll writes to a descriptor that may or may not block.
func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		switch err {
		case nil:
			p = p[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		default:
			return err
		}
	}
	return nil
}

// copyIn passes keys on while this process is in the foreground. Reading from
// the background would take what is meant for the shell, and stop this process.
func (r *relay) copyIn() {
	buf := make([]byte, 4<<10)
	for !r.closed.Load() {
		ready, err := r.awaitKeys()
		if err != nil {
			return
		}
		if !ready {
			continue
		}
		n, err := unix.Read(r.term.in, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return
		}
		keys := buf[:n]
		if n == 0 { // the end of input typed on a terminal that keeps lines
			keys = []byte{endOfInput}
		}
		if _, err := r.master.Write(keys); err != nil {
			return
		}
	}
}

// endOfInput is VEOF of a new pty (termios(3)).
const endOfInput = 4

// backgroundLook is how often, in milliseconds, a relay in the background looks
// whether it has come to the foreground: a shell sends no signal when it brings
// there a job that was never stopped.
const backgroundLook = 200

// awaitKeys waits for a key or to be woken.
func (r *relay) awaitKeys() (ready bool, err error) {
	fds := []unix.PollFd{{Fd: int32(r.woken), Events: unix.POLLIN}}
	timeout := -1
	switch {
	case r.mayRead():
		r.term.takeKeys() // as in resume
		fds = append(fds, unix.PollFd{Fd: int32(r.term.in), Events: unix.POLLIN})
	case !r.term.isAway():
		timeout = backgroundLook
	}
	if _, err := unix.Poll(fds, timeout); err != nil && err != unix.EINTR {
		return false, err
	}
	if fds[0].Revents != 0 {
		var drain [64]byte
		if n, err := unix.Read(r.woken, drain[:]); n == 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return false, os.ErrClosed
		}
	}
	ready = len(fds) == 2 && fds[1].Revents != 0 && !r.closed.Load() && r.mayRead()
	return ready, nil
}

// mayRead reports whether keys are this process's to read.
func (r *relay) mayRead() bool { return !r.term.isAway() && r.term.foreground() }

// pause gives the terminal back for as long as the command is stopped.
func (r *relay) pause() {
	if r != nil {
		r.term.leave()
	}
}

// resume takes the terminal again, if this process is in the foreground now.
func (r *relay) resume() {
	if r != nil {
		r.term.comeBack()
		// Failing is no reason to end: the command has its pty.
		r.term.takeKeys()
		r.wake.Write([]byte{0})
	}
}

// quietTime is how long the pty must have been silent, after the command has
// ended, for its output to count as complete. Data of a pty arrives a little
// after the write that made it; a background process may hold the pty open.
const quietTime = 60 * time.Millisecond

// finish copies what is left of the output, and puts the terminal back.
func (r *relay) finish() {
	if r == nil {
		return
	}
	for quiet := false; !quiet; {
		before := r.copied.Load()
		select {
		case <-r.output:
			quiet = true
		case <-time.After(quietTime):
			quiet = r.copied.Load() == before
		}
	}
	r.closed.Store(true)
	r.wake.Close()
	r.master.Close()
	r.input.Wait()
	unix.Close(r.woken)
	r.term.giveBack()
}
