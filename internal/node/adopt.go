package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/runstate"
	"github.com/varvel/varvel/internal/workload"
)

// earlierRun is a run of an earlier daemon.
type earlierRun struct {
	state runstate.State
	run   *workload.Run
}

// netNS names the network namespace of this process.
func netNS() (string, error) {
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return "", fmt.Errorf("look at this daemon's network namespace: %w", err)
	}
	return ns, nil
}

// stateOf is what the next daemon has to know of a run.
func (n *node) stateOf(run *workload.Run, quiet bool, stage runstate.Stage) runstate.Run {
	return runstate.Run{
		Run: run.Run, Actor: run.Actor, Cgroup: run.CgroupPath, CgroupID: run.CgroupID, NetNS: n.netns, Elsewhere: run.Netns,
		Started: run.Started, Command: run.Command, Quiet: quiet, Stage: stage, Revoked: run.Revoked,
	}
}

// findRuns looks for runs of an earlier daemon. Those that can go on are known
// from here on, so that their approvals stay open; the others are ended.
func (n *node) findRuns(ctx context.Context) (err error) {
	if n.netns, err = netNS(); err != nil {
		return err
	}
	if n.states, err = runstate.Open(filepath.Join(n.Config().Node.RunDir, "runs")); err != nil {
		return err
	}
	n.onStop(func() error {
		if n.leaving {
			return nil
		}
		return n.states.RemoveAll()
	})
	states, err := n.states.Load()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	var errs []error
	for _, st := range states {
		known[st.ID] = true
		if why := n.whyNot(st); why != "" {
			errs = append(errs, n.endEarlier(ctx, st, why))
			continue
		}
		e := &earlierRun{st, n.runOf(st.Run)}
		errs = append(errs, n.runs.Add(e.run))
		n.waiting = append(n.waiting, e)
	}
	left, err := n.cgroups.Leftovers()
	for _, dir := range left {
		if id := filepath.Base(dir); !known[id] {
			errs = append(errs, n.endEarlier(ctx, runstate.State{ID: id}, "nothing was kept of it"))
		}
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("runs of an earlier daemon that cannot go on are still there: %w", err)
	}
	return nil
}

// whyNot says why a run cannot go on with this daemon, or "".
func (n *node) whyNot(st runstate.State) string {
	r := st.Run
	if st.Err != nil {
		return fmt.Sprintf("what was kept of it cannot be read (%v)", st.Err)
	}
	inode, err := workload.Inode(r.Cgroup)
	switch {
	case r.Run.Boot != n.boot:
		return "it is of another boot of this machine"
	case errors.Is(err, fs.ErrNotExist):
		return "its cgroup is gone"
	case err != nil:
		return fmt.Sprintf("its cgroup cannot be looked at (%v)", err)
	case r.Cgroup != filepath.Join(n.cgroups.Runs, st.ID) || inode != r.CgroupID:
		return "its cgroup is not the one that it was started in"
	case r.NetNS != n.netns:
		return "this daemon was started in another network namespace"
	case r.Stage != runstate.Started:
		return "it was only about to start"
	case !n.found.Has(launch.RunDeposit(st.ID)) && n.found.Why != nil:
		return fmt.Sprintf("the keeper could not be asked (%v)", n.found.Why)
	case !n.found.Has(launch.RunDeposit(st.ID)):
		return "the keeper had ended too"
	}
	return ""
}

// runOf is the snapshot of a run under the configuration of now. An agent that is
// not configured any more may reach nothing. The mode is the run's for life.
func (n *node) runOf(r runstate.Run) *workload.Run {
	cfg := n.Config()
	agent, ok := cfg.Agents[r.Run.Agent]
	if !ok {
		agent = &config.Agent{Name: r.Run.Agent, Owner: r.Run.Owner, Mode: r.Run.Mode}
	}
	run := &workload.Run{
		Run: r.Run, Actor: r.Actor, CgroupID: r.CgroupID, CgroupPath: r.Cgroup, Netns: r.Elsewhere, Started: r.Started,
		Agent: agent, Tools: toolsOf(cfg, agent), Command: r.Command, Begun: r.Stage == runstate.Started,
	}
	run.Owner = agent.Owner
	if r.Revoked {
		run.Revoked, run.Tools = true, nil
	}
	return run
}

// endEarlier ends a run of an earlier daemon, and says why. Until its last
// process has gone, the programs of that daemon govern it, or refuse it everything.
func (n *node) endEarlier(ctx context.Context, st runstate.State, why string) error {
	dir := filepath.Join(n.cgroups.Runs, filepath.Base(st.ID))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := errors.Join(workload.Kill(dir), workload.WaitEmpty(ctx, dir)); err != nil {
		return fmt.Errorf("%s: %w", st.ID, err)
	}
	n.Log.Warn("a run of an earlier daemon was ended", "run", st.ID, "reason", why)
	e := about(audit.Event{
		Kind: audit.KindRunEnd, Activity: "daemon-restarted",
		Message: "The daemon that started this run had ended. It stayed governed, and was killed when the daemon came back, because " + why + ".",
	}, st.Run.Run, st.Run.Actor)
	e.Run = st.ID
	n.record(ctx, e, decision.Durable)
	var errs []error
	for _, name := range []string{launch.RunDeposit(st.ID), launch.ClientDeposit(st.ID)} {
		errs = append(errs, n.keeper.Drop(name))
	}
	if err := errors.Join(errs...); err != nil {
		n.Log.Warn("the keeper was not told of the end of a run", "run", st.ID, "error", err)
	}
	return errors.Join(workload.Remove(dir), n.states.Remove(st.ID))
}

// adoptRuns goes on with the runs of an earlier daemon, by the configuration of
// now. What the kernel or the keeper still has of others is dropped.
func (n *node) adoptRuns(ctx context.Context) error {
	n.launcher = &launch.Server{Starter: starter{n}, Log: n.Log, Keeper: n.keeper, Init: n.runInit.program}
	inKernel := n.kernel.Runs()
	governed := map[uint64]bool{}
	for _, r := range inKernel {
		governed[r.CgroupID] = true
	}
	var errs []error
	for _, e := range slices.Clone(n.waiting) {
		err := errors.New("the kernel does not know it")
		if governed[e.run.CgroupID] {
			err = n.adopt(ctx, e)
		}
		if err != nil {
			errs = append(errs, n.giveUp(ctx, e, err))
		}
	}
	for _, r := range inKernel {
		if _, ok := n.runs.ByCgroup(r.CgroupID); !ok {
			errs = append(errs, n.kernel.RemoveRun(r.CgroupID))
		}
	}
	for _, name := range n.found.Close() {
		if !n.keeper.Has(name) {
			errs = append(errs, n.keeper.Drop(name))
		}
	}
	return errors.Join(errs...)
}

// adopt goes on with one run, which the kernel governs, in its network namespace.
func (n *node) adopt(ctx context.Context, e *earlierRun) (err error) {
	run := e.run
	if run.Netns != 0 {
		if err := n.namespaces.adopt(run.Netns); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				n.namespaces.leave(run.Netns)
			}
		}()
		if err := n.namespaces.tell(run); err != nil {
			return err
		}
	}
	return n.adoptHere(ctx, e)
}

func (n *node) adoptHere(ctx context.Context, e *earlierRun) error {
	run := e.run
	rules, err := n.adoptRules(ctx, e)
	if err != nil {
		return fmt.Errorf("put the rules of now into force: %w", err)
	}
	if c, err := n.kernel.Counters(run.CgroupID); err == nil {
		n.losses.knew(run.ID, c)
	}
	err = n.log.Append(ctx, aboutRun(audit.Event{
		Kind: audit.KindRunAdopt, RuleSet: rules, PolicyRevision: n.policy.Load().Revision(),
		Process: &audit.Process{Command: run.Command, UID: run.Actor.StartedBy.UID}, Message: n.adoptedHow(),
	}, run), decision.Durable)
	if err != nil {
		return fmt.Errorf("record that it goes on: %w", err)
	}
	n.Log.Info("run adopted", "run", run.ID, "agent", run.Run.Agent, "names", len(e.state.Names))
	return n.launcher.Adopt(launch.Adopted{
		Run: run.ID, UID: run.Actor.StartedBy.UID, Quiet: e.state.Run.Quiet,
		Init: n.found.Take(launch.RunDeposit(run.ID)), Client: n.found.Take(launch.ClientDeposit(run.ID)),
		Handle: &runHandle{n: n, run: run, quiet: e.state.Run.Quiet, started: true},
	})
}

// adoptRules makes a run judged by the configuration of now, and returns the id of
// its rule set. One that was revoked stays so.
func (n *node) adoptRules(ctx context.Context, e *earlierRun) (string, error) {
	run := e.run
	if run.Revoked {
		n.broker.Revoke(run.ID)
		n.gateway.Revoke(run.ID)
		return "", n.kernel.Revoke(run.CgroupID)
	}
	plan, err := n.egress.Adopt(ctx, run, knownNames(e.state.Names))
	if plan == nil {
		return "", err
	}
	n.broker.Restore(listed(run.ID, e.state.Leases))
	return plan.Rules.ID, errors.Join(err, n.pruneNames(run), n.adoptLeases(run))
}

// adoptLeases tells egress of the addresses of direct names that the kernel still
// lets the run reach.
func (n *node) adoptLeases(run *workload.Run) error {
	leases, err := n.kernel.Leases(run.CgroupID)
	if err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("read the clock since boot: %w", err)
	}
	for _, l := range leases {
		n.egress.RestoreLease(run.CgroupID, l.Address, l.Protocol, l.Expires-time.Duration(now.Nano()))
	}
	return nil
}

// adoptedHow says what a change of the programs has cost.
func (n *node) adoptedHow() string {
	text := "The daemon was followed by another one, and the run goes on."
	if n.kernel.Adoption().SocketsLost {
		text += " The programs were replaced by others whose sockets are laid out in another way: connections that were open are refused."
	}
	return text
}

// giveUp ends a run that could not be adopted.
func (n *node) giveUp(ctx context.Context, e *earlierRun, why error) error {
	n.waiting = slices.DeleteFunc(n.waiting, func(o *earlierRun) bool { return o == e })
	n.runs.Remove(e.run.ID)
	n.egress.Remove(e.run.CgroupID)
	return errors.Join(
		n.endEarlier(ctx, e.state, why.Error()),
		n.approvals.CancelRun(ctx, e.run.ID, "The run could not go on with another daemon."),
	)
}

// pruneNames withdraws what the rules of now do not grant.
func (n *node) pruneNames(run *workload.Run) error {
	return n.kernel.PruneNames(run.CgroupID, func(dst netip.AddrPort) bool {
		_, granted := n.egress.Lookup(run.CgroupID, dst)
		return granted
	})
}

// keptNames keeps names for the next daemon.
type keptNames struct{ states *runstate.Store }

// KeepName implements egress.NameKeeper.
func (k keptNames) KeepName(run string, n egress.KnownName) error {
	return k.states.AddName(run, runstate.Name{Host: n.Host, V4: n.V4, V6: n.V6})
}

func knownNames(kept []runstate.Name) []egress.KnownName {
	out := make([]egress.KnownName, len(kept))
	for i, k := range kept {
		out[i] = egress.KnownName{Host: k.Host, V4: k.V4, V6: k.V6}
	}
	return out
}

func listed(run string, leases []runstate.Lease) []broker.Listed {
	out := make([]broker.Listed, len(leases))
	for i, l := range leases {
		out[i] = broker.Listed{Run: run, Tool: l.Tool, Audience: l.Audience, Expires: l.Expires}
	}
	return out
}
