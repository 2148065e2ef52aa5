package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/identity"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/runstate"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// starter judges who may start what, and prepares runs.
type starter struct{ n *node }

// Begin implements launch.Starter.
func (s starter) Begin(ctx context.Context, peer launch.Peer, r launch.StartRequest) (launch.Plan, launch.Handle, error) {
	cfg := s.n.Config()
	agent, ok := cfg.Agents[r.Agent]
	if !ok {
		return launch.Plan{}, nil, launch.Refuse("there is no agent %q on this node; it has: %s", r.Agent, strings.Join(slices.Sorted(maps.Keys(cfg.Agents)), ", "))
	}
	if err := s.authorise(peer, agent); err != nil {
		return launch.Plan{}, nil, err
	}
	netns, err := s.n.namespaces.of(peer)
	if err != nil {
		return launch.Plan{}, nil, err
	}
	run, err := s.n.newRun(cfg, agent, peer.UID, r.Argv)
	if err != nil {
		s.n.namespaces.leave(netns)
		return launch.Plan{}, nil, err
	}
	run.Netns = netns
	if err := s.n.govern(ctx, run, r.Quiet); err != nil {
		if errors.Is(err, kernel.ErrFull) {
			s.n.Log.Error("there is no room for a run", "run", run.ID, "error", err)
			return launch.Plan{}, nil, launch.Refuse("the kernel's part of Varvel has no room for another run, so it does not start; `varvel runs` lists those that could be ended, and a run's room comes free a minute after its end")
		}
		if unwell := s.n.log.Health(); unwell != nil {
			s.n.Log.Error("the start of a run could not be recorded", "run", run.ID, "error", err)
			return launch.Plan{}, nil, launch.Refuse("the start of a run cannot be recorded, so it does not happen: %v", unwell)
		}
		return launch.Plan{}, nil, err
	}
	if s.n.Config() != cfg {
		s.n.reapplyOne(ctx, run)
	}
	return s.n.plan(cfg, run), &runHandle{n: s.n, run: run, quiet: r.Quiet}, nil
}

// authorise checks the peer by what the kernel says of it.
func (s starter) authorise(peer launch.Peer, agent *config.Agent) error {
	inside, err := s.n.cgroups.RunOf(peer.PID)
	if err != nil {
		return fmt.Errorf("find out whether the caller is in a run: %w", err)
	}
	if inside != "" {
		return launch.Refuse("this process is in the run %s; a run cannot start another in this version of Varvel", filepath.Base(inside))
	}
	if !mayLaunch(peer, agent.Launch) {
		return launch.Refuse("user %d may not start agent %q; an operator allows it by `launch: { users: […] }` at %s", peer.UID, agent.Name, agent.Where("launch"))
	}
	// The run gets the daemon's view of the machine. If the caller's is another,
	// the command would not run where the caller thinks.
	for _, ns := range []string{"mnt", "user", "pid"} {
		same, err := peer.Shares(ns)
		if err != nil {
			return fmt.Errorf("compare the caller's %s namespace with the daemon's: %w", ns, err)
		}
		if !same {
			return launch.Refuse("this process has another %s namespace than varveld, and this version of Varvel starts runs in the daemon's only; call varvel from outside the container or namespace", ns)
		}
	}
	return stillThere(peer)
}

// stillThere makes sure that the process that was looked at is the one that
// connected: had it ended, its number could be another's by now.
func stillThere(peer launch.Peer) error {
	if peer.Pidfd < 0 {
		return nil // Linux before 6.5 has no handle to ask
	}
	fds := []unix.PollFd{{Fd: int32(peer.Pidfd), Events: unix.POLLIN}} // readable: it has ended (pidfd_open(2))
	n, err := unix.Poll(fds, 0)
	for errors.Is(err, unix.EINTR) { // also without waiting, by a signal of Go's scheduler
		n, err = unix.Poll(fds, 0)
	}
	switch {
	case err != nil:
		return fmt.Errorf("ask whether the caller is still there: %w", err)
	case n != 0:
		return launch.Refuse("the process that asked for the run has ended")
	}
	return nil
}

// mayLaunch reports whether a peer is root or one of the principals. A name that
// this node does not know matches nobody.
func mayLaunch(peer launch.Peer, p config.Principals) bool {
	if peer.UID == 0 {
		return true
	}
	for _, name := range p.Users {
		if u, err := user.Lookup(name); err == nil && u.Uid == strconv.FormatUint(uint64(peer.UID), 10) {
			return true
		}
	}
	for _, name := range p.Groups {
		g, err := user.LookupGroup(name)
		if err != nil {
			continue
		}
		for _, gid := range append([]uint32{peer.GID}, peer.Groups...) {
			if g.Gid == strconv.FormatUint(uint64(gid), 10) {
				return true
			}
		}
	}
	return false
}

// newRun makes the snapshot of a run, with a cgroup of its own.
func (n *node) newRun(cfg *config.Config, agent *config.Agent, uid uint32, argv []string) (*workload.Run, error) {
	actor, err := identity.Actor(cfg.Node.TrustDomain, agent.Name, uid)
	if err != nil {
		return nil, err
	}
	id := newID("run")
	path, cgroupID, err := n.cgroups.Create(id)
	if err != nil {
		return nil, err
	}
	return &workload.Run{
		Run:      decision.Run{ID: id, Agent: agent.Name, Owner: agent.Owner, Node: n.id, Boot: n.boot, Mode: agent.Mode},
		Actor:    actor,
		CgroupID: cgroupID, CgroupPath: path, Started: time.Now(),
		Agent: agent, Tools: toolsOf(cfg, agent), Command: boundCommand(argv),
	}, nil
}

func toolsOf(cfg *config.Config, agent *config.Agent) []*tool.Tool {
	tools := make([]*tool.Tool, 0, len(agent.Tools))
	for _, name := range agent.Tools {
		if t, ok := cfg.Tools[name]; ok {
			tools = append(tools, t)
		}
	}
	return tools
}

// boundCommand keeps what people need to recognise a command.
func boundCommand(argv []string) []string {
	const maxArgs, maxLength = 32, 256
	out := make([]string, 0, min(len(argv), maxArgs))
	for _, a := range argv[:min(len(argv), maxArgs)] {
		out = append(out, a[:min(len(a), maxLength)])
	}
	return out
}

// govern puts everything in force that governs a run, before its first process
// exists. If anything fails, nothing is left behind.
func (n *node) govern(ctx context.Context, run *workload.Run, quiet bool) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, n.release(run), n.states.Remove(run.ID))
		}
	}()
	if err := n.states.Put(n.stateOf(run, quiet, runstate.Starting)); err != nil {
		return err
	}
	if err := n.kernel.AddRun(run.CgroupID, run.Mode == decision.ModeObserve); err != nil {
		return err
	}
	if err := n.namespaces.tell(run); err != nil {
		return err
	}
	if err := n.runs.Add(run); err != nil {
		return err
	}
	plan, err := n.egress.Apply(ctx, run)
	if err != nil {
		return fmt.Errorf("put the rules of the run into force: %w", err)
	}
	for _, r := range plan.Refused {
		n.Log.Warn("policy left a rule out", "run", run.ID, "rule", r.Rule.Pos.String(), "decision", r.DecisionID)
	}
	return n.log.Append(ctx, aboutRun(audit.Event{
		Kind: audit.KindRunStart, RuleSet: plan.Rules.ID, PolicyRevision: n.policy.Load().Revision(),
		Process: &audit.Process{Command: run.Command, UID: run.Actor.StartedBy.UID},
	}, run), decision.Durable)
}

// release takes everything away that govern has put in force: tokens and what
// waits for people at once, connections a moment later (see lingering).
func (n *node) release(run *workload.Run) error {
	n.broker.Revoke(run.ID)
	errs := []error{n.approvals.CancelRun(context.Background(), run.ID, "The run has ended.")}
	errs = append(errs, n.lingering.add(run, time.Now()))
	n.runs.Remove(run.ID)
	n.history.Forget(run.CgroupID)
	n.denials.forget(run.CgroupID)
	return errors.Join(append(errs, n.removeCgroup(run))...)
}

// cut ends a run's connections through the gateway, and its names.
func (n *node) cut(run *workload.Run) {
	n.gateway.Revoke(run.ID)
	if s, ok := n.egress.Stats(run.CgroupID); ok {
		n.totals.addQuestions(s)
	}
	n.egress.Remove(run.CgroupID)
}

// connectedRuns finds the runs whose connections the gateway serves: live ones,
// and those that have just ended.
type connectedRuns struct{ n *node }

// ByCgroup implements gateway.Runs.
func (c connectedRuns) ByCgroup(id uint64) (*workload.Run, bool) {
	if run, ok := c.n.runs.ByCgroup(id); ok {
		return run, true
	}
	return c.n.lingering.draining(id)
}

// plan says how the launcher has to make the run.
func (n *node) plan(cfg *config.Config, run *workload.Run) launch.Plan {
	return launch.Plan{
		Run: run.ID, Cgroup: run.CgroupPath, Netns: n.namespaces.file(run.Netns), Pass: run.Agent.Environment.Pass,
		Set: map[string]string{
			"VARVEL_RUN_ID": run.ID, "VARVEL_AGENT": run.Agent.Name, "VARVEL_ENDPOINT": launch.EndpointURL,
		},
		Files: launch.Files{
			Hide:     []string{absolute(cfg.Dir), cfg.Node.StateDir, cfg.Node.RunDir, cfg.Node.BPFFS},
			DenyRead: trees(run.Agent.Files.DenyRead), ReadOnly: trees(run.Agent.Files.ReadOnly),
		},
	}
}

// trees turns DIR/** into DIR: the launcher takes a directory with all below.
func trees(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = strings.TrimSuffix(p, "/**")
	}
	return out
}

func absolute(dir string) string {
	if a, err := filepath.Abs(dir); err == nil {
		return a
	}
	return dir
}
