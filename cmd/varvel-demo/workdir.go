package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// prefix begins the name of everything that the demo makes: its folder, its
// namespaces and its cgroup.
const prefix = "varvel-demo-"

// workdir is the demo's own folder. Its lock is held as long as the demo lives,
// so that a later one can tell leftovers from a demo that runs beside it.
type workdir struct {
	path string
	id   string
	lock *os.File
}

// newWorkdir makes the folder. Others may enter it: clients run as somebody else.
func newWorkdir() (*workdir, error) {
	path, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	w := &workdir{path: path, id: strings.TrimPrefix(filepath.Base(path), prefix)}
	if err := errors.Join(os.Chmod(path, 0o755), w.hold()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	for _, dir := range []string{"logs", "git", "config", "bin", "home", "bpf"} {
		if err := os.Mkdir(filepath.Join(path, dir), 0o755); err != nil {
			return nil, errors.Join(err, w.remove())
		}
	}
	return w, os.Chown(filepath.Join(path, "home"), nobody, nobody)
}

// hold takes the lock. It fails if the demo that made the folder still runs.
func (w *workdir) hold() error {
	lock, err := os.OpenFile(filepath.Join(w.path, "lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(err, lock.Close())
	}
	w.lock = lock
	return nil
}

// remove takes the folder away.
func (w *workdir) remove() error {
	return errors.Join(unmount(filepath.Join(w.path, "bpf")), os.RemoveAll(w.path), w.lock.Close())
}

// keep leaves the folder for somebody to look at.
func (w *workdir) keep() error {
	return errors.Join(unmount(filepath.Join(w.path, "bpf")), os.Remove(filepath.Join(w.path, "lock")), w.lock.Close())
}

// unmount takes a mount away; where none is, there is nothing to do.
func unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// sweep removes what demos have left that were killed before they could.
func sweep(ctx context.Context) error {
	paths, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	var failed []error
	for _, path := range paths {
		if w := abandoned(path); w != nil {
			failed = append(failed, removeCgroup(ctx, w.id), namesFor(w.id).remove(ctx), w.remove())
		}
	}
	return errors.Join(failed...)
}

// abandoned returns the folder at path if it is a demo's that runs no more. A
// folder that is not root's is none of the demo's, whatever its name.
func abandoned(path string) *workdir {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Sys().(*syscall.Stat_t).Uid != 0 {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(path, "lock")); err != nil {
		return nil
	}
	w := &workdir{path: path, id: strings.TrimPrefix(filepath.Base(path), prefix)}
	if w.hold() != nil {
		return nil
	}
	return w
}
