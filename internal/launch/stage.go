package launch

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageMain is the second stage: a child of init that gives up every right and
// then becomes the command. It says that it is about to, and what failed; a
// successful execve closes the control socket.
func stageMain() int {
	// What follows changes one thread, and that thread must be the one that
	// executes the command.
	runtime.LockOSThread()
	ch, err := channelFromFD(controlFD)
	if err != nil {
		return CodeRefused
	}
	err = runStage(ch)
	var e *StartError
	if !errors.As(err, &e) {
		e = Refuse("The command could not be confined, so it was not started: %v.", err)
	}
	ch.send(kindError, e)
	return e.Code
}

func runStage(ch *channel) error {
	f, err := ch.receivePlain()
	if err != nil {
		return err
	}
	var c initConfig
	if err := f.decode(&c); err != nil {
		return err
	}
	if err := takeForeground(c.tty()); err != nil {
		return err
	}
	if c.Limits != nil {
		if err := c.Limits.raise(); err != nil {
			return err
		}
	}
	if err := giveUpRights(c.identity()); err != nil {
		return err
	}
	unix.Umask(c.Umask)
	ignore(c.Ignored)
	argv, env := toStrings(c.Argv), toStrings(c.Env)
	if err := os.Chdir(string(c.Cwd)); err != nil {
		return Refuse("The working directory cannot be entered from within the run (%v). Change to one that you may enter and that is not hidden from runs; /run and /dev are a run's own.", err)
	}
	program, err := lookUp(argv[0], env)
	if err != nil {
		return err
	}
	return confineAndExec(ch, &c, program, argv, env)
}

// takeForeground makes a process group for the command, as a shell would, and
// lets it have the terminal. The group is not orphaned, because its parent, init,
// leads the session from a group of its own; so the command can be stopped from
// the keyboard.
func takeForeground(tty bool) error {
	if err := unix.Setpgid(0, 0); err != nil {
		return fmt.Errorf("make process group: %w", err)
	}
	if !tty {
		return nil
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the run's terminal: %w", err)
	}
	defer unix.Close(fd)
	// A background group that does this is stopped, unless it ignores that
	// (tcsetpgrp(3)).
	signal.Ignore(unix.SIGTTOU)
	defer signal.Reset(unix.SIGTTOU)
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, os.Getpid()); err != nil {
		return fmt.Errorf("take the terminal: %w", err)
	}
	return nil
}

// confineAndExec does what cannot be done earlier, and executes the command.
func confineAndExec(ch *channel, c *initConfig, program string, argv, env []string) error {
	missing, err := enterDomain()
	if err != nil {
		return err
	}
	if err := unix.CloseRange(3, ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	if err := installFilter(); err != nil {
		return err
	}
	if err := ch.send(kindStarted, startedMessage{Missing: missing}); err != nil {
		return err
	}
	if c.Limits != nil {
		if err := c.Limits.apply(); err != nil {
			return err
		}
	}
	err = syscall.Exec(program, argv, env)
	if err == unix.ENOEXEC {
		// A script without a first line that says so; as execvp(3).
		err = syscall.Exec("/bin/sh", append([]string{"/bin/sh", program}, argv[1:]...), env)
	}
	return execError(argv[0], err)
}
