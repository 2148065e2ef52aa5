package testutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Cgroup is a cgroup (version 2) of a test.
type Cgroup struct {
	Path string // absolute
	ID   uint64 // the inode of Path, which is what bpf_get_current_cgroup_id returns
}

// CgroupRoot returns where cgroup2 is mounted, and mounts it for the test if it
// is not. It needs root.
func CgroupRoot(t testing.TB) string {
	t.Helper()
	RequireRoot(t)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if root, ok := cgroup2Mount(string(mounts)); ok {
		return root
	}
	root := t.TempDir()
	if err := syscall.Mount("none", root, "cgroup2", 0, ""); err != nil {
		t.Fatalf("cgroup2 is not mounted, and mounting it failed: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(root, syscall.MNT_DETACH) })
	return root
}

// cgroup2Mount finds the mount point in /proc/PID/mountinfo (proc(5)): the
// fifth field; the type is the first field after the separator "-".
func cgroup2Mount(mountinfo string) (string, bool) {
	for line := range strings.Lines(mountinfo) {
		front, back, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(front), strings.Fields(back)
		if ok && len(fields) >= 5 && len(kind) > 0 && kind[0] == "cgroup2" {
			return fields[4], true
		}
	}
	return "", false
}

// NewCgroup makes a cgroup that goes with the test, with all that runs in it.
func NewCgroup(t testing.TB) *Cgroup {
	t.Helper()
	path, err := os.MkdirTemp(CgroupRoot(t), "varvel-test-")
	if err != nil {
		t.Fatalf("make a cgroup: %v", err)
	}
	cg := &Cgroup{Path: path}
	t.Cleanup(func() {
		if err := cg.remove(); err != nil {
			t.Errorf("remove the cgroup: %v", err)
		}
	})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	cg.ID = info.Sys().(*syscall.Stat_t).Ino
	return cg
}

// Command returns a command that is born in the cgroup.
func (c *Cgroup) Command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd
}

// remove kills what is in the cgroup, and takes the directory away once the
// kernel lets it.
func (c *Cgroup) remove() error {
	if err := os.WriteFile(filepath.Join(c.Path, "cgroup.kill"), []byte("1"), 0); err != nil {
		return err
	}
	var err error
	for range 500 {
		err = os.Remove(c.Path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("it stays busy: %w", err)
}
