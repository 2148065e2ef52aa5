package workload

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initCgroupNS is the inode of the initial cgroup namespace
// (include/linux/proc_ns.h, PROC_CGROUP_INIT_INO).
const initCgroupNS = 0xEFFFFFFB

// Cgroups is Varvel's part of the cgroup v2 tree: one cgroup for the daemon, and
// one under which every run has its own.
type Cgroups struct {
	Root   string // where cgroup2 is mounted
	Daemon string // the daemon's cgroup, absolute
	Runs   string // parent of the runs' cgroups, absolute
}

// FindCgroups says where Varvel's cgroups are: in a directory called name below
// parent, a directory of the cgroup v2 tree; "" is the tree's root. It changes
// nothing.
func FindCgroups(parent, name string) (*Cgroups, error) {
	root, err := findCgroup2("/proc/self/mountinfo", parent)
	if err != nil {
		return nil, err
	}
	if parent == "" {
		parent = root
	}
	if err := checkCgroup2(parent); err != nil {
		return nil, err
	}
	top := filepath.Join(parent, name)
	return &Cgroups{Root: root, Daemon: filepath.Join(top, "daemon"), Runs: filepath.Join(top, "runs")}, nil
}

// OpenCgroups finds Varvel's cgroups and makes them.
func OpenCgroups(parent, name string) (*Cgroups, error) {
	c, err := FindCgroups(parent, name)
	if err != nil {
		return nil, err
	}
	return c, c.Make()
}

// Make makes the daemon's cgroup and that of the runs, where they are not there.
func (c *Cgroups) Make() error {
	for _, dir := range []string{c.Daemon, c.Runs} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the cgroup %s: %w", dir, err)
		}
	}
	return nil
}

func checkCgroup2(root string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return fmt.Errorf("look at the cgroup mount %s: %w", root, err)
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%s is not a cgroup v2 mount; mount one with: mount -t cgroup2 none %s", root, root)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("the cgroup v2 mount %s is read-only; make it writable with: mount -o remount,rw %s (docker: --privileged)", root, root)
	}
	ns, err := Inode("/proc/self/ns/cgroup")
	if err != nil {
		return err
	}
	if ns != initCgroupNS {
		return errors.New("varveld runs in a cgroup namespace and cannot see where runs are; start it in the host's (docker: --cgroupns=host)")
	}
	return nil
}

// findCgroup2 returns where the cgroup v2 tree that holds path is mounted; for ""
// the first one (proc(5), mountinfo: the type follows " - ").
func findCgroup2(mountinfo, path string) (string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", fmt.Errorf("look for the cgroup v2 mount: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		mount, kind, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if !ok || !strings.HasPrefix(kind, "cgroup2 ") || len(fields) < 5 {
			continue
		}
		if path == "" || path == fields[4] || strings.HasPrefix(path, strings.TrimSuffix(fields[4], "/")+"/") {
			return fields[4], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("look for the cgroup v2 mount: %w", err)
	}
	if path != "" {
		return "", fmt.Errorf("%s is not in a cgroup v2 mount; leave `cgroup` out of varvel.yaml to have it found", path)
	}
	return "", errors.New("no cgroup v2 is mounted; mount one with: mount -t cgroup2 none /sys/fs/cgroup")
}

// Level is the depth of a run's cgroup below the root of the tree.
func (c *Cgroups) Level() uint32 {
	rel, _ := filepath.Rel(c.Root, c.Runs)
	return uint32(strings.Count(rel, "/") + 2)
}

// JoinDaemon moves this process into the daemon's cgroup.
func (c *Cgroups) JoinDaemon() error {
	file := filepath.Join(c.Daemon, "cgroup.procs")
	if err := os.WriteFile(file, []byte("0"), 0); err != nil {
		return fmt.Errorf("move into the daemon's cgroup: %w", err)
	}
	return nil
}

// Create makes a fresh cgroup for a run and returns its path and id. A cgroup is
// never used twice: after a write to cgroup.kill, nothing can be born into it
// (seen on Linux 6.18).
func (c *Cgroups) Create(runID string) (path string, id uint64, err error) {
	path = filepath.Join(c.Runs, runID)
	if err := os.Mkdir(path, 0o755); err != nil {
		return "", 0, fmt.Errorf("make the run's cgroup: %w", err)
	}
	if id, err = Inode(path); err != nil {
		return "", 0, errors.Join(err, os.Remove(path))
	}
	return path, id, nil
}

// Inode returns the inode number of a path; of a cgroup v2 directory it is the
// cgroup's id as the kernel gives it to BPF programs.
func Inode(path string) (uint64, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: no inode number", path)
	}
	return st.Ino, nil
}

// Leftovers returns the cgroups of runs that an earlier daemon left behind.
func (c *Cgroups) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(c.Runs)
	if err != nil {
		return nil, fmt.Errorf("look for leftover runs: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(c.Runs, e.Name()))
		}
	}
	return dirs, nil
}

// Kill ends every process in a cgroup and below it (cgroup v2, cgroup.kill).
func Kill(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill the processes of a run: %w", err)
	}
	return nil
}

// WaitEmpty returns when no process is left in a cgroup or below it, or ctx ends.
// The kernel announces the change on cgroup.events by POLLPRI.
func WaitEmpty(ctx context.Context, path string) error {
	f, err := os.Open(filepath.Join(path, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch a run's cgroup: %w", err)
	}
	defer f.Close()
	for {
		populated, err := isPopulated(f)
		if err != nil || !populated {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// A bounded poll, so that the context is looked at too.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch a run's cgroup: %w", err)
		}
	}
}

func isPopulated(f *os.File) (bool, error) {
	buf := make([]byte, 256)
	n, err := f.ReadAt(buf, 0)
	if errors.Is(err, syscall.ENODEV) {
		return false, nil // the cgroup is gone
	}
	if n == 0 && err != nil {
		return false, fmt.Errorf("read cgroup.events: %w", err)
	}
	return bytes.Contains(buf[:n], []byte("populated 1")), nil
}

// Remove deletes an empty cgroup and those below it, deepest first. The kernel
// says EBUSY for a moment after the last process has gone, so it is tried for
// up to a second.
func Remove(path string) error {
	var dirs []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		err = removeOne(dirs[i])
	}
	if err != nil {
		return fmt.Errorf("remove a run's cgroup: %w", err)
	}
	return nil
}

func removeOne(dir string) error {
	for tries := 0; ; tries++ {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || tries == 100 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// RunOf returns the cgroup directory of a run that a process is in, or "" if it
// is in none. It asks the kernel about the process, not the process.
func (c *Cgroups) RunOf(pid int) (string, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", fmt.Errorf("ask for the cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(raw)) {
		if rel, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			if strings.HasPrefix(rel, "/..") {
				return "", fmt.Errorf("process %d is in a cgroup outside of what varveld sees", pid)
			}
			return c.runIn(filepath.Join(c.Root, rel)), nil
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup v2", pid)
}

func (c *Cgroups) runIn(path string) string {
	rel, ok := strings.CutPrefix(path, c.Runs+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rel, "/")
	return filepath.Join(c.Runs, name)
}
