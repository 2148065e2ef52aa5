package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The first argument of init, of the second stage and of a program that is asked
// for its build, by which InitMain knows its part.
const (
	initName  = "varveld-init"
	stageName = "varveld-stage"
	buildName = "varveld-build"
)

// controlFD is the descriptor of init's end of the control socket.
const controlFD = 3

// setupTimeout bounds how long init may take to execute the command. Its file
// system work touches the caller's home, which can hang if it is on a network.
const setupTimeout = 60 * time.Second

// Event is something that happened to a run's command.
type Event struct {
	Stopped int   // the command was stopped by this signal
	Exited  *Exit // the command ended; nothing follows
}

// Process is a run's init, seen from the daemon.
type Process struct {
	Started Started
	// Pty is the descriptor of the master of the run's pty, or -1. It is the
	// caller's to close.
	Pty int

	cmd     *exec.Cmd // nil if an earlier daemon has started it
	pidfd   *os.File  // of init
	control *channel
	events  chan Event
	handled chan struct{} // the last event was handled
	deaf    chan struct{} // closed when nobody asks for events any more
	quiet   sync.Once     // closes deaf
	done    chan struct{}
	readers sync.WaitGroup
}

func newProcess(control *channel, pidfd *os.File) *Process {
	return &Process{
		Pty: -1, pidfd: pidfd, control: control,
		events: make(chan Event), handled: make(chan struct{}), deaf: make(chan struct{}), done: make(chan struct{}),
	}
}

// Start starts a run and returns when its command has been executed. If it
// cannot be, the error is a *StartError where there is something to tell the
// caller. After an error no process is left. Start must not be called from a
// thread with a namespace of its own.
func Start(ctx context.Context, s *Spec) (*Process, error) {
	p, err := startInit(s)
	if err != nil {
		return nil, fmt.Errorf("start init of run %s: %w", s.Run, err)
	}
	// A run that is about to start when the daemon hands over starts all the same.
	stop := context.AfterFunc(ctx, func() {
		if !handingOver(ctx) {
			p.Kill()
		}
	})
	defer stop()
	if err := p.setUp(s); err != nil {
		p.abandon()
		return nil, fmt.Errorf("set up run %s: %w", s.Run, err)
	}
	p.follow()
	return p, nil
}

// follow reads what init reports, and waits for its end.
func (p *Process) follow() {
	p.readers.Go(p.readEvents)
	go p.reap()
}

// startInit makes the process in the run's cgroup and in new namespaces.
func startInit(s *Spec) (*Process, error) {
	cgroup, err := unix.Open(s.Cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", s.Cgroup, err)
	}
	defer unix.Close(cgroup)
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	program, done, err := openProgram(s.Init)
	if err != nil {
		ours.close()
		return nil, err
	}
	defer done()
	// Init is executed by the descriptor that it will have itself: in the child,
	// os/exec may put others in the place of the daemon's.
	cmd := &exec.Cmd{
		Path: programPath, Args: []string{initName}, Env: initEnviron(), Dir: "/",
		ExtraFiles: []*os.File{theirs, program},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
			UseCgroupFD: true, CgroupFD: cgroup,
		},
	}
	if err := startIn(s.Netns, cmd); err != nil {
		ours.close()
		return nil, err
	}
	// Until it is waited for, the process id is init's.
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ours.close()
		return nil, fmt.Errorf("get a handle of init: %w", err)
	}
	p := newProcess(ours, os.NewFile(uintptr(pidfd), "init"))
	p.cmd, p.Started.InitPID = cmd, cmd.Process.Pid
	return p, nil
}

// initEnviron is the environment of init and of the second stage, which the command
// does not get. They do one thing after the other: more threads would only be made
// and ended, and each change of identity stops them all.
func initEnviron() []string { return []string{"GOMAXPROCS=1"} }

// setUp gives init its configuration and waits until the command runs.
func (p *Process) setUp(s *Spec) error {
	p.control.conn.SetReadDeadline(time.Now().Add(setupTimeout))
	defer p.control.conn.SetReadDeadline(time.Time{})
	var stdio []int
	for _, fd := range s.Stdio {
		if fd >= 0 {
			stdio = append(stdio, fd)
		}
	}
	if err := p.control.send(kindConfig, s, stdio...); err != nil {
		return fmt.Errorf("configure init: %w", err)
	}
	for {
		f, fds, err := p.control.receive()
		if err != nil {
			return fmt.Errorf("init said nothing: %w", err)
		}
		if f.kind == kindPty && len(fds) == 1 && p.Pty < 0 {
			p.Pty = fds[0]
			continue
		}
		closeFDs(fds)
		return p.setUpResult(f)
	}
}

// setUpResult reads init's last word on starting the command.
func (p *Process) setUpResult(f frame) error {
	switch f.kind {
	case kindStarted:
		var m startedMessage
		err := f.decode(&m)
		p.Started.Missing = m.Missing
		return err
	case kindError:
		var e StartError
		if err := f.decode(&e); err != nil {
			return err
		}
		return &e
	default:
		return fmt.Errorf("%w: init sent %q while starting", errFrame, byte(f.kind))
	}
}

// abandon ends a run that did not start.
func (p *Process) abandon() {
	p.Kill()
	p.control.close()
	if p.Pty >= 0 {
		unix.Close(p.Pty)
	}
	p.cmd.Wait()
	p.pidfd.Close()
}

// readEvents passes init's reports on until the control socket ends, or nobody
// asks for them. It owns the sending side of events. A report stays in the socket
// until it was handled, and that of the command's end for good: if this daemon
// is killed, the next one reads it.
func (p *Process) readEvents() {
	defer close(p.events)
	for {
		f, size, err := p.control.peek()
		if err != nil {
			return
		}
		e, err := eventOf(f)
		if err != nil {
			p.Kill()
			return
		}
		if !p.pass(e) || e.Exited != nil || p.control.skip(size) != nil {
			return
		}
	}
}

// pass hands an event over, and reports whether it was handled.
func (p *Process) pass(e Event) bool {
	select {
	case p.events <- e:
	case <-p.deaf:
		return false
	}
	if e.Exited != nil {
		return true
	}
	select {
	case <-p.handled:
		return true
	case <-p.deaf:
		return false
	}
}

// Handled says that what the last event asks for was done. It is called after
// each event but the command's end; until then there is no other.
func (p *Process) Handled() {
	select {
	case p.handled <- struct{}{}:
	case <-p.deaf:
	}
}

// Ignore says that nobody asks for events any more.
func (p *Process) Ignore() { p.quiet.Do(func() { close(p.deaf) }) }

func eventOf(f frame) (Event, error) {
	switch f.kind {
	case kindStopped:
		var m signalMessage
		err := f.decode(&m)
		return Event{Stopped: m.Signal}, err
	case kindExited:
		var e Exit
		err := f.decode(&e)
		return Event{Exited: &e}, err
	default:
		return Event{}, fmt.Errorf("%w: init sent %q", errFrame, byte(f.kind))
	}
}

// reap waits for init, whose end is the end of every process of the run
// (pid_namespaces(7), "The namespace init process"). What init said before is
// still in the socket.
func (p *Process) reap() {
	awaitEnd(p.pidfd)
	if p.cmd != nil {
		p.cmd.Wait()
	}
	p.readers.Wait()
	p.control.close()
	p.pidfd.Close()
	close(p.done)
}

// Events returns what happens to the command. The channel is closed after its
// end, or when init is gone without saying how it ended.
func (p *Process) Events() <-chan Event { return p.events }

// Done is closed when no process of the run is left.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal asks init to send a signal to the command. A signal that forwards
// does not accept is an error.
func (p *Process) Signal(sig int) error {
	if !forwards(syscall.Signal(sig)) {
		return fmt.Errorf("signal %d is not one that is forwarded", sig)
	}
	return p.ignoreGone(p.control.send(kindSignal, signalMessage{sig}))
}

// Resize sets the size of the run's pty.
func (p *Process) Resize(w Winsize) error {
	return p.ignoreGone(p.control.send(kindWinsize, w))
}

// ignoreGone drops the error of writing to an init that has ended: Events tells
// of that.
func (p *Process) ignoreGone(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Kill ends every process of the run at once. Done tells when they are gone.
func (p *Process) Kill() {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return // it has ended
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
}

// socketPair makes the control socket: our end, and init's.
func socketPair() (*channel, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control socket: %w", err)
	}
	ours, err := channelFromFD(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(fds[1]), "control"), nil
}
