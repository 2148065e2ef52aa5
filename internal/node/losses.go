package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/workload"
)

// calm is how long no event may be lost before the node counts as well again.
const calm = 10 * time.Minute

// losses turns events that found their ring full into events and health.
type losses struct {
	n *node

	mu   sync.Mutex        // guards what is below
	seen map[string]uint64 // by run, how many were told of
	last time.Time         // when something was lost
}

// watch looks at the live runs until ctx ends.
func (l *losses) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, run := range l.n.runs.All() {
				if c, err := l.n.kernel.Counters(run.CgroupID); err == nil {
					l.tell(ctx, run, c)
				}
			}
			l.calmDown(now)
		}
	}
}

// knew says that what a run had lost by now was told of by an earlier daemon.
func (l *losses) knew(id string, c kernel.Counters) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[id] = c.Lost()
}

// tell records what a run's counters have more than was told of.
func (l *losses) tell(ctx context.Context, run *workload.Run, c kernel.Counters) {
	l.mu.Lock()
	fresh := c.Lost() - min(l.seen[run.ID], c.Lost())
	if fresh > 0 {
		l.seen[run.ID], l.last = c.Lost(), l.n.now()
	}
	l.mu.Unlock()
	if fresh == 0 {
		return
	}
	l.n.totals.lost.Add(fresh)
	l.n.degraded(health.EventsLost, fmt.Sprintf("%d events of %s found the ring full", fresh, run.ID))
	l.n.record(ctx, aboutRun(audit.Event{
		Kind: audit.KindLoss, Component: "kernel", Count: fresh,
		Counts:  map[string]uint64{"life": c.LostLife, "denials": c.LostDenials},
		Message: "The details of these events are lost. What they report was counted, and what was refused stayed refused.",
	}, run), decision.Appended)
}

// forget drops what is remembered of a run that has ended, after a last look.
func (l *losses) forget(ctx context.Context, run *workload.Run, c kernel.Counters) {
	l.tell(ctx, run, c)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, run.ID)
}

func (l *losses) calmDown(now time.Time) {
	l.mu.Lock()
	calmed := !l.last.IsZero() && now.Sub(l.last) > calm
	if calmed {
		l.last = time.Time{}
	}
	l.mu.Unlock()
	if calmed {
		l.n.well(health.EventsLost)
	}
}
