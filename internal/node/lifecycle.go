package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/runstate"
	"github.com/varvel/varvel/internal/workload"
)

// runHandle follows a run to its end.
type runHandle struct {
	n       *node
	run     *workload.Run
	quiet   bool
	started bool
}

// Started implements launch.Handle. From here on the next daemon adopts the run;
// before, it cannot know whether the keeper has all of it.
func (h *runHandle) Started(s launch.Started) {
	h.started = true
	h.n.changing.Lock()
	defer h.n.changing.Unlock()
	run := *h.run
	if now, ok := h.n.runs.ByID(run.ID); ok {
		run = *now // it may have been revoked meanwhile
	}
	if err := h.n.states.Put(h.n.stateOf(&run, h.quiet, runstate.Started)); err == nil {
		run.Begun = true
		h.n.runs.Replace(&run)
	} else {
		h.n.Log.Error("the run would not outlive this daemon", "run", h.run.ID, "error", err)
	}
	h.n.Log.Info("run started", "run", h.run.ID, "agent", h.run.Run.Agent, "pid", s.InitPID, "removed", len(s.Removed), "missing", s.Missing)
}

// Exited implements launch.Handle. It answers with what the run was refused.
func (h *runHandle) Exited(launch.Exit) string {
	h.catchUp()
	return summary(h.run.ID, h.n.history.Recent(h.run.CgroupID))
}

// catchUp waits until the run's events were recorded, while the run is still
// known, so that they have its name. Later ones are told by the registry's ended runs.
func (h *runHandle) catchUp() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := h.n.kernel.Flush(ctx); err != nil {
		h.n.Log.Warn("the kernel's events are behind", "run", h.run.ID, "error", err)
	}
}

// Ended implements launch.Handle.
func (h *runHandle) Ended() {
	h.catchUp()
	ctx := context.Background()
	counters, err := h.n.kernel.Counters(h.run.CgroupID)
	if err != nil {
		h.n.Log.Error("the counters of a run could not be read", "run", h.run.ID, "error", err)
	}
	h.n.losses.forget(ctx, h.run, counters)
	if err := h.n.release(h.run); err != nil {
		h.n.Log.Error("a run could not be cleared up", "run", h.run.ID, "error", err)
	}
	e := aboutRun(audit.Event{Kind: audit.KindRunEnd, Counts: runCounts(counters)}, h.run)
	if !h.started {
		e.Activity, e.Message = "not-started", "The command could not be started."
	}
	h.n.record(ctx, e, decision.Durable)
	if err := h.n.states.Remove(h.run.ID); err != nil {
		h.n.Log.Error("a run could not be cleared up", "run", h.run.ID, "error", err)
	}
	h.n.Log.Info("run ended", "run", h.run.ID, "agent", h.run.Run.Agent, "refused", counters.Total())
}

func runCounts(c kernel.Counters) map[string]uint64 {
	out := map[string]uint64{"forked": c.Forked, "executed": c.Executed, "exited": c.Exited, "flows": c.Flows, "flows_untold": c.FlowsUntold, "lost": c.Lost()}
	for reason, n := range c.Refused {
		out["refused."+reason] = n
	}
	return out
}

// maxSummary is how many different refusals the summary lists.
const maxSummary = 10

// summary tells the person at the terminal what was refused, and what was let
// through only because the agent is in observe mode.
func summary(run string, all []endpoint.Refusal) string {
	if len(all) == 0 {
		return ""
	}
	var refused, observed []endpoint.Refusal
	for _, r := range all {
		if r.Observed {
			observed = append(observed, r)
		} else {
			refused = append(refused, r)
		}
	}
	var b strings.Builder
	listRefusals(&b, fmt.Sprintf("Refused in this run (%s)", run), "varvel audit --run "+run+" --effect deny", refused)
	listRefusals(&b, fmt.Sprintf("Let through in observe mode, and refused in enforce mode (%s)", run), "varvel audit --run "+run, observed)
	fmt.Fprintf(&b, "What would allow one: varvel why %s DESTINATION\n", run)
	return b.String()
}

// listRefusals writes some refusals. Targets are what the workload asked for;
// they are quoted, so that they can't be control sequences.
func listRefusals(b *strings.Builder, title, more string, list []endpoint.Refusal) {
	if len(list) > 0 {
		fmt.Fprintf(b, "%s:\n", title)
	}
	for i, r := range list {
		if i == maxSummary {
			fmt.Fprintf(b, "  … and %d more; see: %s\n", len(list)-i, more)
			break
		}
		fmt.Fprintf(b, "  %4d× %s", max(r.Count, 1), quoted(r.Target))
		if r.Detail != "" {
			fmt.Fprintf(b, " %s", quoted(r.Detail))
		}
		fmt.Fprintf(b, ": %s (%s)\n", r.Text, r.Rule)
		if r.Approval != "" {
			fmt.Fprintf(b, "        it waits for: varvel approve %s\n", r.Approval)
		}
	}
}

// quoted is s if it is plain, else a quoted form of it without control characters.
func quoted(s string) string {
	q := fmt.Sprintf("%+q", s)
	if q == `"`+s+`"` {
		return s
	}
	return q
}
