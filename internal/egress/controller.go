package egress

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// Controller puts the plans of runs into force. It is safe for concurrent use;
// calls about one run are made one after the other by their caller.
type Controller struct {
	options Options

	mu   sync.RWMutex
	runs map[uint64]*runState // by cgroup id

	rules sharedRules
}

// Options are the parts of a Controller. All but Limits, Keeper and Families are required.
type Options struct {
	Datapath Datapath
	Leaser   Leaser
	Snapshot func() CheckFunc // where names may lead now; *Scope has it
	Gate     Gate
	Decider  Decider
	Events   Events
	Log      *slog.Logger
	Limits   Limits
	Keeper   NameKeeper // nil: names are of no use to a later daemon

	// Families says over which families a run that lives in that network namespace
	// can be redirected now; nil: both. It is asked for every answer.
	Families func(netns uint64) (has4, has6 bool)
}

// NewController returns a controller without runs.
func NewController(o Options) *Controller {
	o.Limits = o.Limits.orDefaults()
	return &Controller{options: o, runs: map[uint64]*runState{}}
}

// Changes are how the kernel is switched; a Datapath with a Leaser is, for one run, and
// kernel.Changes for many.
type Changes interface {
	UseRuleSet(cgroupID uint64, id string) error
	Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error
}

// Apply plans a run and puts the plan into force: see Prepare and Switch. It is called
// before the first process of a run starts. The plan that is returned says what policy
// left out.
//
// If there is a plan and an error, the plan is in force, but the kernel did not
// take all ports of names that the run knows already, or did not give up a lease. If there is no plan,
// nothing has changed.
func (c *Controller) Apply(ctx context.Context, run *workload.Run) (*Plan, error) {
	plan, err := c.Prepare(ctx, c.options.Decider, run)
	if err != nil {
		return nil, err
	}
	used, err := c.Switch(struct {
		Datapath
		Leaser
	}{c.options.Datapath, c.options.Leaser}, run, plan)
	if !used {
		return nil, err
	}
	return plan, err
}

// Adopt is Apply for a run that an earlier daemon has started, and that was told
// the addresses of the known names. They mean the same as before; which of them may
// be used is up to the plan.
func (c *Controller) Adopt(ctx context.Context, run *workload.Run, known []KnownName) (*Plan, error) {
	plan, err := c.Prepare(ctx, c.options.Decider, run)
	if err != nil {
		return nil, err
	}
	state, err := newRunState(c.options, run, plan, known)
	if err != nil {
		return nil, fmt.Errorf("restore the names of run %s: %w", run.Run.ID, err)
	}
	if err := c.options.Datapath.UseRuleSet(run.CgroupID, plan.Rules.ID); err != nil {
		return nil, fmt.Errorf("use the rule set of run %s: %w", run.Run.ID, err)
	}
	if err := c.options.Gate.UseListen(run.CgroupID, plan.Listen); err != nil {
		return nil, fmt.Errorf("open what run %s listens on: %w", run.Run.ID, err)
	}
	c.add(run.CgroupID, state)
	return plan, state.restoreNames()
}

func (c *Controller) add(cgroupID uint64, state *runState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs[cgroupID] = state
}

// Prepare plans a run: the rule set is loaded, and its event is durable, but nothing
// has changed. Many runs may be prepared at the same time.
func (c *Controller) Prepare(ctx context.Context, d Decider, run *workload.Run) (*Plan, error) {
	plan, err := NewPlan(ctx, d, run)
	if err != nil {
		return nil, err
	}
	plan.Rules = c.rules.one(plan.Rules)
	if err := c.options.Datapath.LoadRuleSet(plan.Rules); err != nil {
		return nil, fmt.Errorf("load the rule set of run %s: %w", run.Run.ID, err)
	}
	event := RuleSetEvent{
		Run: run, ID: plan.Rules.ID, Entries: len(plan.Rules.Entries),
		Names: plan.names.size(), Direct: plan.Direct(), Refused: plan.Refused,
		Listen: plan.Listen.ID, ListenEntries: len(plan.Listen.Entries), ListenRefused: plan.ListenRefused,
	}
	if state, ok := c.state(run.CgroupID); ok {
		_, old := state.current()
		event.Previous = old.Rules.ID
	}
	if err := c.options.Events.RuleSet(ctx, event); err != nil {
		return nil, fmt.Errorf("record the rule set of run %s, which is not used: %w", run.Run.ID, err)
	}
	return plan, nil
}

// Switch puts a plan that Prepare has made for the run into force: the kernel is
// switched, then the names. It reports whether the plan is in force, which it can be
// in spite of an error.
func (c *Controller) Switch(changes Changes, run *workload.Run, plan *Plan) (bool, error) {
	err := changes.UseRuleSet(run.CgroupID, plan.Rules.ID)
	if err != nil && c.options.Datapath.LoadRuleSet(plan.Rules) == nil {
		// Prepare was long ago: rule sets without users are unloaded after a while.
		err = changes.UseRuleSet(run.CgroupID, plan.Rules.ID)
	}
	if err != nil {
		return false, fmt.Errorf("use the rule set of run %s: %w", run.Run.ID, err)
	}
	if err := c.options.Gate.UseListen(run.CgroupID, plan.Listen); err != nil {
		return false, fmt.Errorf("open what run %s listens on: %w", run.Run.ID, err)
	}
	if state, known := c.state(run.CgroupID); known {
		return true, state.replace(run, plan, changes)
	}
	state, err := newRunState(c.options, run, plan, nil)
	if err != nil {
		return true, err
	}
	c.add(run.CgroupID, state)
	return true, nil
}

// Remove forgets a run. What the kernel holds of it is the kernel's to drop.
func (c *Controller) Remove(cgroupID uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.runs, cgroupID)
}

// Lookup returns the name that dst stands for in a run, and by what the run may
// reach it. It reports false if dst is no synthetic address of the run, or its
// port is not granted by the plan in force.
func (c *Controller) Lookup(cgroupID uint64, dst netip.AddrPort) (Name, bool) {
	state, ok := c.state(cgroupID)
	if !ok {
		return Name{}, false
	}
	return state.lookup(dst)
}

// Plan returns the plan in force for a run.
func (c *Controller) Plan(cgroupID uint64) (*Plan, bool) {
	state, ok := c.state(cgroupID)
	if !ok {
		return nil, false
	}
	_, plan := state.current()
	return plan, true
}

// Stats returns what the DNS server has counted for a run.
func (c *Controller) Stats(cgroupID uint64) (Stats, bool) {
	state, ok := c.state(cgroupID)
	if !ok {
		return Stats{}, false
	}
	return state.count.snapshot(), true
}

func (c *Controller) state(cgroupID uint64) (*runState, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	state, ok := c.runs[cgroupID]
	return state, ok
}
