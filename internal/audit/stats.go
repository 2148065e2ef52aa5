package audit

import (
	"maps"
	"sync"

	"github.com/varvel/varvel/internal/decision"
)

// Label is what events are counted by.
type Label struct {
	Kind   Kind
	Effect decision.Effect // may be empty
}

// Stats are numbers since Open, but for Seq, which goes back to the beginning
// of the log.
type Stats struct {
	Events map[Label]uint64
	Bytes  uint64 // of payload
	Syncs  uint64 // calls of fsync(2) on segments
	Seq    uint64 // of the last event
}

type stats struct {
	mu sync.Mutex
	s  Stats
}

func (s *stats) count(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Events[Label{r.kind, r.effect}]++
	s.s.Bytes += uint64(len(r.payload))
	s.s.Seq = r.seq
}

func (s *stats) synced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.s.Syncs++
}

func (s *stats) last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s.Seq
}

func (s *stats) snapshot() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.s
	out.Events = maps.Clone(s.s.Events)
	return out
}
