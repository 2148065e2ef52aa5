package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/policy"
	"github.com/varvel/varvel/internal/workload"
)

// preparedAtOnce is how many runs are prepared at the same time. Each waits for the
// disk, and those that wait together wait once.
const preparedAtOnce = 256

// change is what a live run is about to get.
type change struct {
	next *workload.Run
	plan *egress.Plan // nil if there is none
	err  error
}

// reapply gives live runs their new rules and returns how many have them. All rule
// sets are recorded before the first is used; then the kernel is switched for all,
// and open connections are judged anew once.
func (n *node) reapply(ctx context.Context, cfg *config.Config, engine *policy.Engine, runs []*workload.Run) int {
	all := n.prepare(ctx, cfg, engine, runs)
	n.swap(all)
	done := 0
	var errs []error
	for i := range all {
		c := &all[i]
		if c.plan != nil {
			c.err = errors.Join(c.err, n.cutOff(ctx, c))
		}
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.next.ID, c.err))
			n.Log.Error("a live run did not get all of its new rules", "run", c.next.ID, "error", c.err)
		} else if c.plan != nil {
			done++
		}
	}
	if len(errs) > 0 {
		n.degraded(health.RuleSetFailed, fmt.Sprintf("%d runs, the first of them %v", len(errs), errs[0]))
	} else {
		n.well(health.RuleSetFailed)
	}
	return done
}

// reapplyOne is for a run that was made by a configuration that is not in force any
// more. A reload that did not see it has stored its configuration before.
func (n *node) reapplyOne(ctx context.Context, run *workload.Run) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	n.reapply(context.WithoutCancel(ctx), n.Config(), n.policy.Load(), []*workload.Run{run})
}

// prepare makes the plans of runs, durably recorded, and changes nothing.
func (n *node) prepare(ctx context.Context, cfg *config.Config, engine *policy.Engine, runs []*workload.Run) []change {
	decider := *n.engine
	decider.Evaluator = engine.Shared()
	all := make([]change, 0, len(runs))
	for _, run := range runs {
		if !run.Revoked {
			all = append(all, change{next: reconfigured(cfg, run)})
		}
	}
	var group errgroup.Group
	group.SetLimit(preparedAtOnce)
	for i := range all {
		group.Go(func() error {
			all[i].plan, all[i].err = n.egress.Prepare(ctx, &decider, all[i].next)
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	return all
}

// reconfigured is a live run with what is configured for its agent. An agent that is
// no longer configured may reach nothing.
func reconfigured(cfg *config.Config, run *workload.Run) *workload.Run {
	next := *run
	agent, ok := cfg.Agents[run.Run.Agent]
	if !ok {
		agent = &config.Agent{Name: run.Run.Agent, Owner: run.Owner, Mode: run.Mode}
	}
	// The mode is the run's for life: what was started in observe was not
	// governed from birth.
	next.Agent, next.Tools, next.Owner = agent, toolsOf(cfg, agent), agent.Owner
	return &next
}

// replace puts a reconfigured run in the place of what it was, and reports whether
// it may: not if it has ended or was revoked. The caller holds the lock on changes.
func (n *node) replace(next *workload.Run) bool {
	now, ok := n.runs.ByID(next.ID)
	if !ok || now.Revoked {
		return false
	}
	next.Begun = now.Begun // it may have begun since the plan was made
	return n.runs.Replace(next)
}

// swap switches the kernel and the names of all runs that have a plan. What has been
// revoked or has ended in the meantime is left alone, and has no plan afterwards.
func (n *node) swap(all []change) {
	n.changing.Lock()
	defer n.changing.Unlock()
	changes := n.kernel.Begin()
	for i := range all {
		c := &all[i]
		if !n.replace(c.next) {
			c.plan, c.err = nil, nil
			continue
		}
		if c.plan == nil {
			continue
		}
		used, err := n.egress.Switch(changes, c.next, c.plan)
		if !used {
			c.plan = nil
		}
		c.err = err
		if used {
			c.err = errors.Join(err, changes.PruneNames(c.next.CgroupID, func(dst netip.AddrPort) bool {
				_, granted := n.egress.Lookup(c.next.CgroupID, dst)
				return granted
			}))
		}
	}
	if err := changes.End(); err != nil {
		for i := range all {
			all[i].err = errors.Join(all[i].err, err)
		}
	}
}

// cutOff ends what a run has open and is not allowed any more.
func (n *node) cutOff(ctx context.Context, c *change) error {
	n.changing.Lock()
	defer n.changing.Unlock()
	cut, err := n.cutDenied(c.next, c.plan)
	if cut > 0 {
		n.record(ctx, cutEvent(c.next, cut), decision.Appended)
	}
	return err
}
