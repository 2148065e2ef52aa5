package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a part of a harness that listens to orders on its standard input.
type Process[Order, Reply any] struct {
	*Conversation[Order, Reply]
	Cmd   *exec.Cmd
	stdin io.Closer
}

// Start starts a command that serves a conversation. What it says on standard
// error is the harness's own.
func Start[Order, Reply any](cmd *exec.Cmd) (*Process[Order, Reply], error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return &Process[Order, Reply]{NewConversation[Order, Reply](stdout, stdin), cmd, stdin}, nil
}

// Stop ends a process by closing its input.
func (p *Process[Order, Reply]) Stop() error {
	err := p.stdin.Close()
	return errors.Join(err, p.Cmd.Wait())
}

// Command runs a program that has to succeed.
func Command(ctx context.Context, argv ...string) error {
	return run(exec.CommandContext(ctx, argv[0], argv[1:]...))
}

func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return nil
}

// Apart starts this program again, with other arguments, in a network namespace
// of its own and, with mounts, in a mount namespace of its own. It returns when
// that has ended, and ends it in order when ctx ends. If it has failed, it has
// said why, and this process exits with its status.
func Apart(ctx context.Context, mounts bool, args ...string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if mounts {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // and nothing is propagated from there (syscall.SysProcAttr)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	return err
}
