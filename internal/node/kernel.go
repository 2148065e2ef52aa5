package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/admin/health"
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
func (n *node) claimNode(context.Context) (err error) {
	if n.cgroups, err = workload.OpenCgroups(n.Config().Node.Cgroup, "varvel"); err != nil {
		return err
	}
	for _, dir := range []string{n.Config().Node.BPFFS, filepath.Dir(n.cgroups.Runs)} {
		if err := n.claim(dir); err != nil {
			return err
		}
	}
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
	n.lingering = &lingering{kernel: n.kernel, drained: n.cut, ended: n.totals.add}
	n.addTask("ended runs", n.lingering.run)
	n.addTask("kernel events", func(ctx context.Context) error { return n.kernel.Events(ctx, n.kernelEvent) })
	n.addTask("kernel losses", n.watchLosses)
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

// calm is how long no event may be lost before the node counts as well again.
const calm = 10 * time.Minute

// watchLosses turns events that found the ring full into events and health.
func (n *node) watchLosses(ctx context.Context) error {
	seen := maps.Clone(n.lostBefore)
	var last time.Time
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if n.countLosses(ctx, seen) {
				last = now
			} else if !last.IsZero() && now.Sub(last) > calm {
				n.well(health.EventsLost)
				last = time.Time{}
			}
		}
	}
}

// countLosses reports what was lost since seen, and brings seen up to date.
func (n *node) countLosses(ctx context.Context, seen map[string]uint64) (lost bool) {
	live := map[string]bool{}
	for _, run := range n.runs.All() {
		live[run.ID] = true
		c, err := n.kernel.Counters(run.CgroupID)
		if err != nil || c.Lost == seen[run.ID] {
			continue
		}
		n.reportLoss(ctx, run, c.Lost-seen[run.ID])
		seen[run.ID], lost = c.Lost, true
	}
	for id := range seen {
		if !live[id] {
			delete(seen, id)
		}
	}
	return lost
}

func (n *node) reportLoss(ctx context.Context, run *workload.Run, lost uint64) {
	n.totals.lost.Add(lost)
	n.degraded(health.EventsLost, fmt.Sprintf("%d events of %s found the ring full", lost, run.ID))
	n.record(ctx, aboutRun(audit.Event{
		Kind: audit.KindLoss, Component: "kernel", Count: lost,
		Message: "The details of these events are lost. What they report was counted, and what was refused stayed refused.",
	}, run), decision.Appended)
}

func (n *node) now() time.Time { return time.Now() }
