package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cgroupFor returns the demo's own part of the cgroup v2 tree, so that a Varvel
// that governs this machine and the demo's do not meet.
func cgroupFor(id string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		mount, kind, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(mount); strings.HasPrefix(kind, "cgroup2 ") && len(fields) > 4 {
			return filepath.Join(fields[4], prefix+id), nil
		}
	}
	return "", errors.New("no cgroup v2 is mounted, which Varvel needs: mount -t cgroup2 none /sys/fs/cgroup")
}

// removeCgroup kills what is in the demo's cgroup and removes it with all below
// it. What does not exist is no error.
func removeCgroup(ctx context.Context, id string) error {
	top, err := cgroupFor(id)
	if err != nil {
		return nil // where no cgroup v2 is mounted, none was made
	}
	if _, err := os.Stat(top); err != nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(top, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("end what is left in %s: %w", top, err)
	}
	// A killed process is in its cgroup until it is gone altogether.
	return eventually(ctx, 5*time.Second, func() error { return removeFolders(top) })
}

// removeFolders removes a cgroup and those below it, the deepest first.
func removeFolders(top string) error {
	var folders []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	for _, folder := range slices.Backward(folders) {
		err = errors.Join(err, os.Remove(folder))
	}
	return err
}
