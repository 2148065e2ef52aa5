package node

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/time/rate"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/workload"
)

// What one run can write into the record by being refused: details are bounded,
// counts are not (the kernel's counters are exact).
const (
	denialsPerSecond = 50
	denialBurst      = 500
)

// kernelDenials is what the kernel has refused since the start, by reason.
func (n *node) kernelDenials() map[string]uint64 {
	out := n.totals.denials()
	live := n.lingering.counters()
	if c, err := n.kernel.Counters(kernel.Nobody); err == nil {
		live = append(live, c)
	}
	for _, run := range n.runs.All() {
		if c, err := n.kernel.Counters(run.CgroupID); err == nil {
			live = append(live, c)
		}
	}
	for _, c := range live {
		for reason, count := range c.Refused {
			out[reason] += count
		}
	}
	return out
}

// denials records what the kernel refuses, so much of it for each run.
type denials struct {
	n *node

	mu   sync.Mutex
	runs map[uint64]*denialBudget
}

type denialBudget struct {
	limiter *rate.Limiter
	skipped uint64
}

func newDenials(n *node) *denials { return &denials{n: n, runs: map[uint64]*denialBudget{}} }

// admit takes one event, which stands for so many refusals, from a run's budget.
// It returns how many refusals a record of it stands for; 0 is no record.
func (d *denials) admit(cgroupID, refusals uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.runs[cgroupID]
	if !ok {
		b = &denialBudget{limiter: rate.NewLimiter(denialsPerSecond, denialBurst)}
		d.runs[cgroupID] = b
	}
	b.skipped += refusals
	if !b.limiter.Allow() {
		return 0
	}
	count := b.skipped
	b.skipped = 0
	return count
}

// forget drops a run's budget.
func (d *denials) forget(cgroupID uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.runs, cgroupID)
}

// note records a refusal. run may be nil: a cgroup that is no run's.
func (d *denials) note(run *workload.Run, e kernel.Event) {
	reason := decision.Reason{Rule: e.Reason, Text: kernel.ReasonText(e.Reason)}
	if run != nil {
		d.n.history.Add(e.CgroupID, endpoint.Refusal{
			Time: d.n.now(), Target: refusedTarget(e), Detail: protocolName(e.Protocol), Rule: reason.Rule, Text: reason.Text, Count: 1,
			Observed: e.Kind == kernel.EventWouldDeny,
		})
	}
	count := d.admit(e.CgroupID, e.Count)
	if count == 0 {
		return
	}
	ev := audit.Event{
		Kind: audit.KindConnect, Activity: audit.Activity(e.Hook), Component: "kernel", Effect: decision.EffectDeny,
		Reasons: []decision.Reason{reason}, Count: count,
		Target:  &audit.Target{Address: e.Address.Addr(), Port: e.Address.Port(), Protocol: protocolName(e.Protocol)},
		Process: &audit.Process{PID: int(e.PID), UID: e.UID, Program: e.Comm},
	}
	if e.Hook == "ingress" {
		ev.Target = &audit.Target{Port: e.Local, Protocol: protocolName(e.Protocol)}
		ev.Peer = &audit.Peer{Address: e.Address.Addr(), Port: e.Address.Port()}
		ev.Process = nil // packets come in in nobody's context
	}
	if e.Kind == kernel.EventWouldDeny {
		ev.Effect, ev.Would = decision.EffectAllow, decision.EffectDeny
	}
	out := &ev
	if run != nil {
		out = aboutRun(ev, run)
	}
	d.n.record(context.Background(), out, decision.Appended)
}

// refusedTarget is what was refused, for people.
func refusedTarget(e kernel.Event) string {
	if e.Hook == "ingress" {
		return fmt.Sprintf("port %d, from %s", e.Local, e.Address)
	}
	return e.Address.String()
}

func protocolName(p uint8) string {
	switch p {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	}
	return ""
}
