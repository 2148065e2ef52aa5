package node

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/keeper"
)

// openKeeper finds the keeper of an earlier daemon, or starts one.
func (n *node) openKeeper(ctx context.Context) (err error) {
	n.keeper, n.found, err = keeper.Open(ctx, keeper.Options{
		Socket: filepath.Join(n.Config().Node.RunDir, "keeper.sock"),
		Daemon: n.cgroups.Daemon, Cgroup: filepath.Join(filepath.Dir(n.cgroups.Runs), "keeper"), Log: n.Log,
		Lost: func(err error) { n.degraded(health.KeeperDown, err.Error()) },
		Back: func() { n.well(health.KeeperDown) },
	})
	if err != nil {
		return err
	}
	n.onStop(func() error {
		n.found.Close()
		if n.leaving {
			n.keeper.Close()
			return nil
		}
		return n.keeper.Quit(context.Background())
	})
	n.addTask("keeper", n.keeper.Run)
	return nil
}

// depositAnchors has the keeper hold what keeps the programs attached, also if
// bpffs is unmounted and this daemon ends.
func (n *node) depositAnchors() error {
	var errs []error
	for _, a := range n.kernel.Anchors() {
		errs = append(errs, n.keeper.Put("anchor/"+a.Name, descriptor(a.FD)))
	}
	if err := errors.Join(errs...); err != nil {
		n.Log.Warn("the keeper does not hold all programs", "error", err)
	}
	return nil
}

// descriptor is a syscall.RawConn of a descriptor that somebody else owns.
type descriptor int

// Control implements syscall.RawConn.
func (d descriptor) Control(f func(fd uintptr)) error {
	f(uintptr(d))
	return nil
}

var errNoConn = errors.New("the descriptor is only held")

func (d descriptor) Read(func(fd uintptr) bool) error  { return errNoConn }
func (d descriptor) Write(func(fd uintptr) bool) error { return errNoConn }

// watchPins looks after what keeps the programs in force without this daemon.
func (n *node) watchPins(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.checkPins()
		}
	}
}

// checkPins makes pins again that are gone, and says so either way. A bpffs that was
// unmounted is mounted again, as at the start.
func (n *node) checkPins() {
	err := n.kernel.CheckPins()
	if err == nil {
		n.well(health.KernelPins)
		return
	}
	n.degraded(health.KernelPins, err.Error())
	if err := n.remountBPFFS(); err != nil {
		n.Log.Error("bpffs could not be mounted again", "error", err)
		return
	}
	if err := n.kernel.Repin(); err != nil {
		n.Log.Error("the pins could not be made again", "error", err)
		return
	}
	_ = n.depositAnchors() // it has said what it could not do
}

func (n *node) remountBPFFS() error {
	dir := n.Config().Node.BPFFS
	mounted, err := mountBPFFS(dir)
	if err != nil || !mounted {
		return err
	}
	n.Log.Warn("bpffs was unmounted, and is mounted again", "dir", dir)
	return n.claim(dir)
}
