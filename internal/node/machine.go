package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/workload"
)

// The oldest kernel that Varvel works with: the one of Debian 12.
const (
	oldestMajor = 6
	oldestMinor = 1
)

// checkRoot comes before everything else: without root not even the
// configuration can be relied on to be readable.
func checkRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("varveld needs root, to load programs into the kernel and to start runs as other users; start it with sudo or as a systemd service")
	}
	return nil
}

// checkMachine refuses to start where Varvel cannot work, with what to do. It
// changes nothing.
func (n *node) checkMachine(context.Context) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	if err := checkRelease(unix.ByteSliceToString(u.Release[:])); err != nil {
		return err
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return fmt.Errorf("this kernel offers no BTF (%w); Varvel needs Linux %d.%d or newer with CONFIG_DEBUG_INFO_BTF=y, as Debian and Ubuntu build it, and /sys mounted", err, oldestMajor, oldestMinor)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the boot id: %w; is /proc mounted?", err)
	}
	n.boot = strings.TrimSpace(string(boot))
	n.cgroups, err = workload.FindCgroups(n.Config().Node.Cgroup, "varvel")
	return err
}

// checkRelease looks whether a kernel release, as of uname(2), is new enough.
func checkRelease(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("the kernel's release %q has no version in front; Varvel needs Linux %d.%d or newer", release, oldestMajor, oldestMinor)
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return fmt.Errorf("this kernel is Linux %s, and Varvel needs %d.%d or newer; boot a newer one, such as that of Debian 12 or Ubuntu 24.04", release, oldestMajor, oldestMinor)
	}
	return nil
}

// ensureBPFFS mounts a bpffs if there is none where the configuration says. Once
// the daemon has come up, the mount is the machine's: pins in it outlive the
// daemon.
func (n *node) ensureBPFFS(context.Context) error {
	dir := n.Config().Node.BPFFS
	if err := n.makeDir(dir, 0o700); err != nil {
		return fmt.Errorf("make the mount point for bpffs (set `bpffs` to a directory that can be made): %w", err)
	}
	mounted, err := mountBPFFS(dir)
	if err != nil {
		return err
	}
	if mounted {
		n.onFailure(func() error {
			if err := unix.Unmount(dir, 0); err != nil {
				return fmt.Errorf("unmount the bpffs at %s: %w", dir, err)
			}
			return nil
		})
	}
	return checkCapabilities()
}

// mountBPFFS mounts a bpffs at dir, and reports true, unless one is there.
func mountBPFFS(dir string) (mounted bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return false, nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return false, fmt.Errorf("no bpffs is mounted at %s and it cannot be mounted (%w); do it by hand: mount -t bpf bpf %s", dir, err, dir)
	}
	return true, nil
}

// makeDir makes a directory and those above it. If the start fails later, those
// that were made here go again, unless something is in them.
func (n *node) makeDir(dir string, mode fs.FileMode) error {
	var missing []string // deepest first
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	n.onFailure(func() error {
		for _, d := range missing {
			_ = os.Remove(d) // refused if it is in use, as it should be
		}
		return nil
	})
	return nil
}

// takeLock makes sure that this is the only daemon with this state, and gives
// the node its lasting id.
func (n *node) takeLock(context.Context) error {
	cfg := n.Config().Node
	for _, dir := range []struct {
		key, path string
		mode      fs.FileMode
	}{{"state_dir", cfg.StateDir, 0o700}, {"run_dir", cfg.RunDir, 0o755}} {
		err := n.makeDir(dir.path, dir.mode)
		if err == nil {
			err = unix.Access(dir.path, unix.W_OK|unix.X_OK)
		}
		if err != nil {
			return fmt.Errorf("%s cannot be used (%w); set `%s` to a directory that can be made and written", dir.path, err, dir.key)
		}
	}
	lock, err := os.OpenFile(filepath.Join(cfg.StateDir, "varveld.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("another varveld uses %s; stop it first, or give this one its own state_dir, run_dir, bpffs and cgroup", cfg.StateDir)
	}
	n.onStop(lock.Close)
	n.id, err = nodeID(filepath.Join(cfg.StateDir, "node-id"))
	return err
}

// nodeID reads the node's id, or makes one and keeps it.
func nodeID(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(raw)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's id: %w", err)
	}
	id := newID("node")
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the node's id: %w", err)
	}
	return id, nil
}
