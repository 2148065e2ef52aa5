package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// start starts a keeper and returns when it listens.
func start(ctx context.Context, o Options) error {
	if err := os.Mkdir(o.Cgroup, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the keeper's cgroup: %w", err)
	}
	cgroup, err := unix.Open(o.Cgroup, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the keeper's cgroup: %w", err)
	}
	defer unix.Close(cgroup)
	ready, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{processName, o.Socket, o.Daemon}, Env: []string{}, Dir: "/",
		ExtraFiles:  []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: cgroup},
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	go cmd.Wait() // ends with the keeper, which ends when it likes
	return awaitReady(ctx, ready)
}

// awaitReady reads what the keeper has to say of its start.
func awaitReady(ctx context.Context, ready *os.File) error {
	defer context.AfterFunc(ctx, func() { ready.Close() })()
	ready.SetReadDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(io.LimitReader(ready, 1024))
	switch {
	case err != nil:
		return fmt.Errorf("wait for the keeper: %w", err)
	case string(text) != "ready":
		return fmt.Errorf("the keeper did not start: %q", text)
	}
	return nil
}

// killCgroup ends a keeper that does not answer, and waits until it is gone.
func killCgroup(ctx context.Context, cgroup string) error {
	err := os.WriteFile(filepath.Join(cgroup, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the keeper: %w", err)
	}
	// After a write to cgroup.kill nothing can be born into a cgroup (seen on
	// Linux 6.18), so it is made anew each time.
	for tries := 0; ; tries++ {
		err := os.Remove(cgroup)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if tries == 200 || ctx.Err() != nil {
			return fmt.Errorf("remove the keeper's cgroup: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
