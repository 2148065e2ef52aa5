package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/workload"
)

// patience is how long the end of a killed process may take.
const patience = 10 * time.Second

func (n *node) pins() string { return filepath.Join(n.Config().Node.BPFFS, "varvel") }

// claimNode takes the cgroups and bpffs for this daemon, and moves it into its
// own cgroup: from there the keeper takes it for the daemon.
func (n *node) claimNode(context.Context) error {
	top := filepath.Dir(n.cgroups.Runs)
	if err := n.claim(n.Config().Node.BPFFS); err != nil {
		return err
	}
	if err := n.cgroups.CheckAlone(); err != nil {
		return err
	}
	if err := n.cgroups.Make(); err != nil {
		return err
	}
	if err := n.claim(top); err != nil {
		return err
	}
	n.onFailure(n.removeCgroups)
	if err := n.cgroups.JoinDaemon(); err != nil {
		return err
	}
	n.onStop(n.leaveCgroups)
	return nil
}

// claim makes sure that no other daemon uses a directory, also one with another
// state_dir: what it has there would be taken for leftovers.
func (n *node) claim(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("claim %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("another varveld uses %s; stop it first, or give this one its own bpffs and cgroup", dir)
	}
	n.onStop(f.Close)
	return nil
}

// openKernel puts the programs into force, or takes over those of an earlier
// daemon. If it left no run, its programs go: nothing depends on them.
func (n *node) openKernel(context.Context) (err error) {
	left, err := n.cgroups.Leftovers()
	if err != nil {
		return err
	}
	if len(left) == 0 {
		if err := kernel.Unpin(n.pins()); err != nil {
			return err
		}
	}
	n.kernel, err = kernel.Open(kernel.Config{
		Runs: n.cgroups.Runs, Daemon: n.cgroups.Daemon, Level: n.cgroups.Level(), Pins: n.pins(), Log: n.Log,
	})
	if err != nil {
		return err
	}
	n.onStop(func() error {
		n.kernel.Close()
		if n.leaving {
			return nil
		}
		return kernel.Unpin(n.pins())
	})
	if a := n.kernel.Adoption(); a.Adopted {
		n.Log.Info("the programs of an earlier daemon were taken over", "repaired", a.Repaired, "replaced", a.Replaced,
			"sockets_lost", a.SocketsLost, "rules_lost", a.RulesLost, "event_bytes_lost", a.EventBytes)
	}
	n.denials = newDenials(n)
	n.lingering = &lingering{kernel: n.kernel, drained: n.drained, ended: n.totals.add}
	n.addTask("ended runs", n.lingering.run)
	n.addTask("flows", n.watchFlows)
	n.addTask("kernel events", func(ctx context.Context) error { return n.kernel.Events(ctx, n.kernelEvent) })
	n.addTask("kernel tables", n.watchTables)
	n.losses = &losses{n: n, seen: map[string]uint64{}}
	n.addTask("kernel losses", n.losses.watch)
	n.addTask("kernel pins", n.watchPins)
	return n.depositAnchors()
}

// leaveCgroups moves the daemon back and removes its cgroups, if no run is left.
func (n *node) leaveCgroups() error {
	if n.leaving {
		return nil
	}
	if err := os.WriteFile(filepath.Join(n.cgroups.Root, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("leave the daemon's cgroup: %w", err)
	}
	return n.removeCgroups()
}

// removeCgroups removes the daemon's cgroups, unless a run is below them: its
// programs are attached there.
func (n *node) removeCgroups() error {
	left, err := n.cgroups.Leftovers()
	if err != nil || len(left) > 0 {
		return err
	}
	return workload.Remove(filepath.Dir(n.cgroups.Runs))
}

// kernelEvent records what the kernel saw.
func (n *node) kernelEvent(e kernel.Event) {
	run, ok := n.runs.ByCgroup(e.CgroupID)
	if !ok {
		run, ok = n.runs.EndedByCgroup(e.CgroupID)
	}
	switch {
	case e.Kind == kernel.EventDenied || e.Kind == kernel.EventWouldDeny:
		n.denials.note(run, e)
	case !ok:
		return // a run that ended long ago; its end is recorded
	case e.Kind == kernel.EventExec:
		n.record(context.Background(), aboutRun(audit.Event{
			Kind: audit.KindExec,
			Process: &audit.Process{
				PID: int(e.PID), Parent: int(e.Parent), UID: e.UID, Program: e.Path,
			},
		}, run), decision.Appended)
	case e.Kind == kernel.EventExit:
		n.record(context.Background(), aboutRun(audit.Event{Kind: audit.KindExit, Process: exitOf(e)}, run), decision.Appended)
	}
}

// exitOf reads a wait status (wait(2)): the low 7 bits are the signal, the second
// byte is the exit code.
func exitOf(e kernel.Event) *audit.Process {
	p := &audit.Process{PID: int(e.PID), Parent: int(e.Parent), UID: e.UID, Program: e.Comm}
	if sig := int(e.Status & 0x7f); sig != 0 {
		p.Signal = sig
		return p
	}
	code := int(e.Status >> 8 & 0xff)
	p.ExitCode = &code
	return p
}

func (n *node) now() time.Time { return time.Now() }
