package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/rig"
	"github.com/varvel/varvel/internal/workload"
)

// site is where figures are measured: a network, cgroups, files.
type site struct {
	rig.Closers
	options Options
	dir     string // of temporary files
	cpu     int    // of the measured worker
	cgroups *workload.Cgroups
}

// openSite prepares everything that figures share.
func openSite(ctx context.Context, o Options) (_ *site, err error) {
	s := &site{options: o, cpu: runtime.NumCPU() - 1}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", sitePrefix); err != nil {
		return nil, err
	}
	s.OnClose(func() error { return os.RemoveAll(s.dir) })
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.makeCgroups(fmt.Sprint(sitePrefix, os.Getpid())); err != nil {
		return nil, err
	}
	s.OnClose(func() error { return workload.Remove(s.top()) })
	if err := errors.Join(mountBPFFS(), sweep(s.cgroups.Root)); err != nil {
		return nil, err
	}
	world, err := startWorld(ctx, s.caFile())
	if err != nil {
		return nil, err
	}
	s.OnClose(world.Stop)
	// The kernel takes a dead process's wire away only after a while, and the
	// next site needs the name.
	s.OnClose(func() error { return rig.Unwire(context.WithoutCancel(ctx)) })
	return s, nil
}

func (s *site) caFile() string { return filepath.Join(s.dir, "ca.pem") }

// makeCgroups makes those that the kernel programs are attached to, below one that
// has room for a daemon's beside them: one Varvel can't be inside another's.
func (s *site) makeCgroups(name string) error {
	root, err := workload.FindCgroups("", name)
	if err != nil {
		return err
	}
	top := filepath.Dir(root.Runs)
	if err := os.Mkdir(top, 0o755); err != nil {
		return err
	}
	s.cgroups, err = workload.OpenCgroups(top, "direct")
	return err
}

func (s *site) top() string { return filepath.Dir(filepath.Dir(s.cgroups.Runs)) }

const bpffs = "/sys/fs/bpf"

func mountBPFFS() error {
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	return nil
}

func (s *site) pins() string { return filepath.Join(bpffs, filepath.Base(s.top())) }

// openKernel puts the shipped programs into force for the site's runs.
func (s *site) openKernel() (*kernel.Kernel, error) {
	return kernel.Open(kernel.Config{
		Runs: s.cgroups.Runs, Daemon: s.cgroups.Daemon, Level: s.cgroups.Level(),
		Pins: s.pins(), Log: slog.New(slog.DiscardHandler),
	})
}

// closeKernel takes them away.
func (s *site) closeKernel(k *kernel.Kernel) error {
	k.Close()
	return kernel.Unpin(s.pins())
}

// worker starts a worker that ends with the site.
func (s *site) worker(ctx context.Context, cgroup string) (*process, error) {
	p, err := startWorker(ctx, cgroup, s.cpu)
	if err == nil {
		s.OnClose(p.Stop)
	}
	return p, err
}

// comparedWorker starts a worker whose sockets pass programs to compare with.
func (s *site) comparedWorker(ctx context.Context, name string, attach func(cgroup string) (io.Closer, error)) (*process, error) {
	dir := filepath.Join(s.top(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	s.OnClose(func() error { return workload.Remove(dir) })
	attached, err := attach(dir)
	if err != nil {
		return nil, err
	}
	s.OnClose(attached.Close)
	return s.worker(ctx, dir)
}

// runWorker starts a worker in a run of its own, with a rule set.
func (s *site) runWorker(ctx context.Context, k *kernel.Kernel, name string, m mixture) (*process, error) {
	p, _, err := s.runWorkerID(ctx, k, name, m)
	return p, err
}

// runWorkerID returns also the id of the run's cgroup.
func (s *site) runWorkerID(ctx context.Context, k *kernel.Kernel, name string, m mixture) (*process, uint64, error) {
	dir, id, err := s.cgroups.Create(name)
	if err != nil {
		return nil, 0, err
	}
	s.OnClose(func() error { return workload.Remove(dir) })
	if err := errors.Join(k.AddRun(id, false), k.LoadRuleSet(m.rules), k.UseRuleSet(id, m.rules.ID)); err != nil {
		return nil, 0, fmt.Errorf("govern the run %s: %w", name, err)
	}
	s.OnClose(func() error { return k.RemoveRun(id) })
	p, err := s.worker(ctx, dir)
	return p, id, err
}
