package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// step is one part of laying out the file system of a run.
type step struct {
	name string
	do   func() error
}

// layout is the file system of a run in the making.
type layout struct {
	config *initConfig
	rules  Files
	mounts []mountPoint // of the host, before anything was changed
	hostRun
}

// layOut changes this process's mount namespace to what a run sees. It returns
// the path of this program, which the run cannot change. The order matters:
// /run comes before what is masked, because the masks are kept there, and the
// run's own read-only rules before the masks that may lie below them.
func layOut(c *initConfig) (self string, err error) {
	l := &layout{config: c, rules: c.Files.files()}
	steps := []step{
		{"keep mounts apart from the host's", l.separate},
		{"look at the host's /run", l.readRun},
		{"mount /proc", l.mountProc},
		{"protect this program", func() (err error) { self, err = protectSelf(); return err }},
		{"make /dev", l.makeDev},
		{"make /sys read-only", l.protectSys},
		{"make files read-only", l.protectFiles},
		{"make /run", l.makeRun},
		{"mask files", l.mask},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return "", fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return self, nil
}

// separate keeps what follows from reaching the host, and reads what is
// mounted.
func (l *layout) separate() error {
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	l.mounts, err = readMounts(f)
	return err
}

// mountProc mounts a /proc that shows the run's processes only, and takes away
// what it has besides processes: kernel settings that uid 0 may write even
// without capabilities (core_pattern would be a way out), and memory.
func (l *layout) mountProc() error {
	if err := mount("proc", "/proc", "proc", quiet, ""); err != nil {
		return err
	}
	for _, name := range []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "mtrr"} {
		if err := readOnly("/proc/" + name); err != nil {
			return err
		}
	}
	return nil
}

// procMasks returns what of /proc nobody in a run may read.
func procMasks() []string {
	return []string{
		"/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys", "/proc/key-users", "/proc/timer_list",
		"/proc/sched_debug", "/proc/latency_stats", "/proc/scsi", "/proc/acpi", "/proc/asound",
		"/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup", "/proc/vmallocinfo", "/proc/slabinfo",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// protectSelf makes this program's file read-only in the run, and returns its
// path. The second stage is executed from that mount, so that not even
// /proc/PID/exe is a way to write to it.
func protectSelf() (string, error) {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", err
	}
	p, err := findPlace(path)
	if err != nil {
		return "", fmt.Errorf("the program of init was replaced while the daemon runs; restart the daemon: %w", err)
	}
	defer p.close()
	var running unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &running); err != nil {
		return "", err
	}
	if running.Dev != p.stat.Dev || running.Ino != p.stat.Ino {
		return "", fmt.Errorf("%s was replaced while the daemon runs; restart the daemon", path)
	}
	if err := p.bind(p.path()); err != nil {
		return "", err
	}
	return path, setReadOnly(path)
}

// protectSys makes /sys, with the cgroup file systems in it, read-only, and
// every cgroup file system and sysfs elsewhere.
func (l *layout) protectSys() error {
	if err := setReadOnly("/sys"); err != nil && !errors.Is(err, unix.EINVAL) {
		return err // EINVAL: nothing is mounted on /sys
	}
	for _, m := range l.mounts {
		if below(m.path, "/sys", "/proc", "/dev", "/run") {
			continue
		}
		if m.fstype == "sysfs" || m.fstype == "cgroup" || m.fstype == "cgroup2" {
			if err := setReadOnly(m.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// kernelMasks returns the places of the file systems that are doors to the
// kernel or to other processes. Those that lie in a directory that the run has
// anew are gone already.
func (l *layout) kernelMasks() []string {
	types := []string{
		"bpf", "tracefs", "debugfs", "securityfs", "configfs", "pstore", "efivarfs", "fusectl", "binfmt_misc",
		"mqueue", "devtmpfs", "devpts", "proc", "nsfs", "rpc_pipefs", "resctrl", "binder",
	}
	var places []string
	for _, m := range l.mounts {
		if slices.Contains(types, m.fstype) && !below(m.path, "/proc", "/dev", "/run") {
			places = append(places, m.path)
		}
	}
	return places
}

// below reports whether path is one of the directories or in one.
func below(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}

// protectFiles applies the agent's read-only rules.
func (l *layout) protectFiles() error {
	for _, name := range l.rules.ReadOnly {
		if err := readOnly(filepath.Clean(name)); err != nil {
			return err
		}
	}
	return nil
}
