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
)

// checkMachine refuses to start where Varvel cannot work, with what to do.
func (n *node) checkMachine(context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("varveld needs root, to load programs into the kernel and to start runs as other users; start it with sudo or as a systemd service")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return fmt.Errorf("this kernel offers no BTF (%w); Varvel needs Linux 6.1 or newer with CONFIG_DEBUG_INFO_BTF=y, as Debian and Ubuntu build it", err)
	}
	if err := ensureBPFFS(n.Config().Node.BPFFS); err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the boot id: %w", err)
	}
	n.boot = strings.TrimSpace(string(boot))
	return nil
}

// ensureBPFFS mounts a bpffs at dir if there is none.
func ensureBPFFS(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the mount point for bpffs (set `bpffs` to a directory that can be made): %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("no bpffs is mounted at %s and it cannot be mounted (%w); do it by hand: mount -t bpf bpf %s", dir, err, dir)
	}
	return nil
}

// takeLock makes sure that this is the only daemon with this state, and gives
// the node its lasting id.
func (n *node) takeLock(context.Context) error {
	cfg := n.Config().Node
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{cfg.StateDir, 0o700}, {cfg.RunDir, 0o755}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return fmt.Errorf("make %s: %w", dir.path, err)
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
