package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a varveld that is started, perhaps many times one after the other.
type Daemon struct {
	Bin    string // folder with varveld and varvel
	Dir    string // of its configuration, with varvel.yaml
	Socket string // of its operators' API
	Log    string // file to which it says what it does

	cmd   *exec.Cmd
	ended chan struct{}
}

// Start starts varveld. It gets SIGTERM when ctx ends.
func (d *Daemon) Start(ctx context.Context) error {
	log, err := os.OpenFile(d.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(d.Bin, "varveld"), "--config", d.Dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start varveld; make build makes it: %w", err)
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // Exit tells
		close(ended)
	}()
	return nil
}

// WaitReady asks until the daemon answers and all is well.
func (d *Daemon) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		out, err := d.Varvel(ctx, "status").CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-d.ended:
			return fmt.Errorf("varveld has ended: %s: %s", d.cmd.ProcessState, d.Tail())
		case <-ctx.Done():
			return fmt.Errorf("varveld is not ready: %s: %s", out, d.Tail())
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// Tail is the end of what the daemon has said.
func (d *Daemon) Tail() string {
	raw, err := os.ReadFile(d.Log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2000):])
}

// Varvel is the command line tool, speaking to this daemon.
func (d *Daemon) Varvel(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(d.Bin, "varvel"), append([]string{"--socket", d.Socket}, args...)...)
}

// Pid is the process of the daemon that was started last.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Alive reports whether it still runs.
func (d *Daemon) Alive() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the daemon. One that has ended is not told.
func (d *Daemon) Signal(s syscall.Signal) error {
	err := d.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Wait waits until the daemon has ended and returns how.
func (d *Daemon) Wait(ctx context.Context) (*os.ProcessState, error) {
	select {
	case <-d.ended:
		return d.cmd.ProcessState, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("varveld does not end: %s", d.Tail())
	}
}

// Kill ends the daemon without a chance to do anything.
func (d *Daemon) Kill() error {
	if !d.Alive() {
		return nil
	}
	err := d.Signal(syscall.SIGKILL)
	<-d.ended
	return err
}

// Stop ends the daemon in order, or else with force, and takes its bpffs at a
// path away.
func (d *Daemon) Stop(bpffs string) error {
	if d.Alive() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err := d.Signal(syscall.SIGTERM)
		if _, late := d.Wait(ctx); late != nil {
			err = errors.Join(err, late, d.Kill())
		}
		if err != nil {
			return errors.Join(err, Unmount(bpffs))
		}
	}
	return Unmount(bpffs)
}

// Unmount takes a mount away; where none is, there is nothing to do.
func Unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
