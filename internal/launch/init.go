package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitMain runs this program as the init of a run, or as its second stage, if
// it was started as one, or says of which build it is, if a daemon asks; then it
// does not return. A program that starts runs, and one that is their init, calls
// it first thing in main.
func InitMain() {
	switch {
	case len(os.Args) != 1:
	case os.Args[0] == initName:
		os.Exit(initMain())
	case os.Args[0] == stageName:
		os.Exit(stageMain())
	case os.Args[0] == buildName:
		os.Exit(buildMain())
	}
}

// runInit is PID 1 of a run.
type runInit struct {
	ch     *channel
	config initConfig
	stdio  []int  // received from the daemon, then complete: 0, 1 and 2 of the command
	self   string // path of this program, read-only in the run
}

// initMain starts the command and stays until no process is left.
func initMain() int {
	ch, err := channelFromFD(controlFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, "varvel: this is the init of a run; the daemon starts it")
		return CodeRefused
	}
	unix.Close(programFD)
	// Else it is called as its path, a number (proc_pid_comm(5)).
	_ = os.WriteFile("/proc/self/comm", []byte(InitProgram), 0)
	x := &runInit{ch: ch}
	pid, missing, err := x.start()
	if err == nil {
		err = ch.send(kindStarted, startedMessage{Missing: missing})
	}
	if err != nil {
		var e *StartError
		if !errors.As(err, &e) {
			e = Refuse("The run could not be set up, so its command was not started: %v.", err)
		}
		ch.send(kindError, e)
		return e.Code
	}
	return newReaper(ch, pid).run()
}

// start lays out the run and executes its command. It returns the command's
// process id and what the kernel does not offer.
func (x *runInit) start() (pid int, missing []string, err error) {
	if err := x.configure(); err != nil {
		return 0, nil, err
	}
	if x.self, err = layOut(&x.config); err != nil {
		return 0, nil, err
	}
	if _, err := unix.Setsid(); err != nil {
		return 0, nil, fmt.Errorf("begin session: %w", err)
	}
	if x.config.tty() {
		if err := x.openTerminal(); err != nil {
			return 0, nil, err
		}
	}
	return x.startStage()
}

// configure reads what the daemon wants. Until then init is nothing but a program
// in new namespaces.
func (x *runInit) configure() error {
	if os.Getpid() != 1 {
		return errors.New("init is not the first process of its PID namespace")
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide init's memory: %w", err)
	}
	unix.Umask(0)
	f, fds, err := x.ch.receive()
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	x.stdio = fds
	if f.kind != kindConfig {
		return fmt.Errorf("%w: configuration expected, got %q", errFrame, byte(f.kind))
	}
	if err := f.decode(&x.config); err != nil {
		return err
	}
	want := 0
	for _, pty := range x.config.Pty {
		if !pty {
			want++
		}
	}
	if len(fds) != want {
		return fmt.Errorf("%w: %d descriptors instead of %d", errFrame, len(fds), want)
	}
	return nil
}

// openTerminal makes the run's pty, in its own devpts, and hands the master to
// the daemon. Init keeps neither end open, so that the caller notices when the
// last process lets go, and the run notices when the caller does.
func (x *runInit) openTerminal() error {
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make pty: %w", err)
	}
	defer unix.Close(master)
	slave, err := openSlave(master)
	if err != nil {
		return fmt.Errorf("open pty: %w", err)
	}
	if err := x.prepareSlave(slave); err != nil {
		unix.Close(slave)
		return err
	}
	if err := x.ch.send(kindPty, struct{}{}, master); err != nil {
		return fmt.Errorf("hand over pty: %w", err)
	}
	x.connect(slave)
	return nil
}

// openSlave opens the other end of a pty without a path (TIOCGPTPEER,
// ioctl_tty(2)).
func openSlave(master int) (int, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// prepareSlave gives the terminal to the caller, with the size of the caller's,
// and makes it the session's.
func (x *runInit) prepareSlave(slave int) error {
	if err := unix.Fchown(slave, int(x.config.UID), ttyGroup); err != nil {
		return fmt.Errorf("give the pty to the caller: %w", err)
	}
	if w := x.config.Winsize; w != (Winsize{}) {
		if err := setWinsize(slave, w); err != nil {
			return fmt.Errorf("set the pty's size: %w", err)
		}
	}
	if !x.config.Pty[0] || !x.config.Pty[1] {
		if err := plainPty(slave); err != nil {
			return fmt.Errorf("set up the pty: %w", err)
		}
	}
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make the pty the session's terminal: %w", err)
	}
	return nil
}

// plainPty sets up the pty for a command that has only a part of the caller's
// terminal. The terminal itself then goes on echoing and ending lines (see
// terminal.takeKeys), so the pty must not.
func plainPty(fd int) error {
	state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	state.Oflag &^= unix.OPOST
	state.Lflag &^= unix.ECHO | unix.ECHONL
	return unix.IoctlSetTermios(fd, unix.TCSETS, state)
}

func setWinsize(fd int, w Winsize) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: w.Rows, Col: w.Cols, Xpixel: w.X, Ypixel: w.Y})
}

// connect puts the terminal where the caller had one.
func (x *runInit) connect(slave int) {
	plain := x.stdio
	x.stdio = nil
	for _, pty := range x.config.Pty {
		if pty {
			x.stdio = append(x.stdio, slave)
			continue
		}
		x.stdio, plain = append(x.stdio, plain[0]), plain[1:]
	}
}

// startStage starts the second stage, gives up init's rights, and waits until
// the stage has become the command.
func (x *runInit) startStage() (pid int, missing []string, err error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return 0, nil, err
	}
	defer ours.close()
	pid, err = syscall.ForkExec(x.self, []string{stageName}, &syscall.ProcAttr{
		Dir: "/", Env: initEnviron(),
		Files: []uintptr{uintptr(x.stdio[0]), uintptr(x.stdio[1]), uintptr(x.stdio[2]), theirs.Fd()},
	})
	theirs.Close()
	closeFDs(slices.Compact(slices.Sorted(slices.Values(x.stdio))))
	if err != nil {
		return 0, nil, fmt.Errorf("start the second stage: %w", err)
	}
	// The second stage has the rights that it needs; init needs none any more,
	// and has none when the command begins.
	if err := retire(x.config.identity()); err != nil {
		return 0, nil, err
	}
	if err := ours.send(kindConfig, x.config); err != nil {
		return 0, nil, fmt.Errorf("configure the second stage: %w", err)
	}
	missing, err = stageResult(ours)
	return pid, missing, err
}

// stageResult returns what the second stage found missing, once the end of the
// socket has shown that its execve succeeded.
func stageResult(ch *channel) ([]string, error) {
	f, err := ch.receivePlain()
	if err != nil {
		return nil, fmt.Errorf("the second stage ended early: %w", err)
	}
	if f.kind == kindError {
		return nil, decodeError(f)
	}
	var m startedMessage
	if err := f.decode(&m); err != nil {
		return nil, err
	}
	switch f, err = ch.receivePlain(); {
	case err == io.EOF:
		return m.Missing, nil
	case err != nil:
		return nil, err
	}
	return nil, decodeError(f)
}

func decodeError(f frame) error {
	var e StartError
	if err := f.decode(&e); err != nil {
		return err
	}
	return &e
}

// tty reports whether the command has a terminal.
func (c *initConfig) tty() bool { return c.Pty[0] || c.Pty[1] || c.Pty[2] }

func (c *initConfig) identity() identity { return identity{c.UID, c.GID, c.Groups} }
