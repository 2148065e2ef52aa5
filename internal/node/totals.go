package node

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/kernel"
)

// totals are counts of runs that have ended, so that what is counted since the
// daemon's start never goes down.
type totals struct {
	lost atomic.Uint64 // kernel events

	mu     sync.Mutex        // guards what is below
	denied map[string]uint64 // by the kernel, by reason
	asked  map[string]uint64 // questions to the name server, by result
}

// add counts what a run was refused by the kernel.
func (t *totals) add(c kernel.Counters) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.denied == nil {
		t.denied = map[string]uint64{}
	}
	for reason, n := range c.Refused {
		t.denied[reason] += n
	}
}

// addQuestions counts what a run has asked.
func (t *totals) addQuestions(s egress.Stats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asked == nil {
		t.asked = map[string]uint64{}
	}
	addQuestions(t.asked, s)
}

// denials returns a copy of what was denied.
func (t *totals) denials() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return copied(t.denied)
}

// questions returns a copy of what was asked.
func (t *totals) questions() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return copied(t.asked)
}

func copied(m map[string]uint64) map[string]uint64 {
	if m == nil {
		return map[string]uint64{}
	}
	return maps.Clone(m)
}

func addQuestions(out map[string]uint64, s egress.Stats) {
	out["answered"] += s.Answered
	out["empty"] += s.Empty
	out["denied"] += s.Denied
	out["failed"] += s.Failed
	out["malformed"] += s.Malformed
	out["limited"] += s.Limited
	out["observed"] += s.Observed
}
