package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ttyGroup is the group of terminals, by a convention as old as grantpt(3).
const ttyGroup = 5

// device is a character device that every run has.
type device struct {
	name         string
	major, minor uint32 // Documentation/admin-guide/devices.txt
}

func devices() []device {
	return []device{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	}
}

// gpuPatterns returns the devices that a run gets from the host if they are
// there: those that compute. Their permissions stay as they are.
func gpuPatterns() []string { return []string{"/dev/dri", "/dev/kfd", "/dev/nvidia*"} }

// makeDev mounts a /dev that has what programs need and no disk, console,
// virtual machine or log, whoever runs: uid 0 owns all of them, and needs no
// capability to open what it owns. POSIX shared memory, message queues and
// terminals in it are the run's own.
func (l *layout) makeDev() error {
	kept, err := keepDevices()
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range kept {
			p.close()
		}
	}()
	if err := mount("tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m,nr_inodes=4096"); err != nil {
		return err
	}
	for _, d := range devices() {
		if err := unix.Mknod("/dev/"+d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make device %s: %w", d.name, err)
		}
	}
	if err := mountDevParts(); err != nil {
		return err
	}
	for _, p := range kept {
		if err := restoreDevice(p); err != nil {
			return err
		}
	}
	return linkDev()
}

// mountDevParts mounts the file systems in /dev.
func mountDevParts() error {
	if err := makeDirs(map[string]os.FileMode{"/dev/pts": 0o755, "/dev/shm": 0o777 | os.ModeSticky, "/dev/mqueue": 0o755}); err != nil {
		return err
	}
	const noDev = unix.MS_NOSUID | unix.MS_NODEV
	if err := mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC,
		fmt.Sprintf("newinstance,ptmxmode=0666,mode=0620,gid=%d", ttyGroup)); err != nil {
		return err
	}
	if err := mount("tmpfs", "/dev/shm", "tmpfs", noDev, "mode=1777"); err != nil {
		return err
	}
	err := mount("mqueue", "/dev/mqueue", "mqueue", quiet, "")
	if errors.Is(err, unix.ENODEV) {
		return nil // a kernel without POSIX message queues
	}
	return err
}

func linkDev() error {
	links := map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	}
	for name, target := range links {
		if err := os.Symlink(target, "/dev/"+name); err != nil {
			return err
		}
	}
	return nil
}

// keepDevices holds the devices that the run gets from the host.
func keepDevices() ([]*place, error) {
	var kept []*place
	for _, pattern := range gpuPatterns() {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return kept, err
		}
		for _, name := range names {
			p, err := findPlace(name)
			if err != nil {
				return kept, err
			}
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// restoreDevice binds a device, or a directory of them, to its name in the new
// /dev.
func restoreDevice(p *place) error {
	if p.kind() == unix.S_IFDIR {
		if err := os.Mkdir(p.name, 0o755); err != nil {
			return err
		}
	} else if err := os.WriteFile(p.name, nil, 0o600); err != nil {
		return err
	}
	target, err := findPlace(p.name)
	if err != nil {
		return err
	}
	defer target.close()
	return target.bind(p.path())
}
