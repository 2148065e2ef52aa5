package endpoint

import (
	"slices"
	"sync"
	"time"
)

// maxHistory is how many different refusals of one run are remembered.
const maxHistory = 64

// Refusal is something that was refused to a run.
type Refusal struct {
	Time   time.Time `json:"time"`             // of the last occurrence
	Target string    `json:"target"`           // name:port, address:port, or a name: data, escaped when printed
	Detail string    `json:"detail,omitempty"` // such as a method and path
	Rule   string    `json:"rule"`             // the reason's code
	Text   string    `json:"text,omitempty"`   // the reason's sentence
	// Approval is what the action waits for, if it waits.
	Approval string `json:"approval,omitempty"`
	Count    uint64 `json:"count"` // how often, at least 1
	// Observed means that it was let through, because the agent is in observe mode.
	Observed bool `json:"observed,omitempty"`
}

// same reports whether two refusals differ in their time and count only.
func (r Refusal) same(o Refusal) bool {
	return r.Target == o.Target && r.Detail == o.Detail && r.Rule == o.Rule && r.Approval == o.Approval && r.Observed == o.Observed
}

// History remembers the last refusals of each run. The zero value is ready. It
// is safe for concurrent use.
type History struct {
	mu   sync.Mutex
	runs map[uint64][]Refusal // by cgroup id, the latest last
}

// Add remembers a refusal. One that is known already is counted.
func (h *History) Add(cgroupID uint64, r Refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs == nil {
		h.runs = map[uint64][]Refusal{}
	}
	r.Count = max(r.Count, 1)
	list := h.runs[cgroupID]
	if i := slices.IndexFunc(list, r.same); i >= 0 {
		r.Count += list[i].Count
		list = slices.Delete(list, i, i+1)
	}
	if len(list) >= maxHistory {
		list = slices.Delete(list, 0, 1)
	}
	h.runs[cgroupID] = append(list, r)
}

// Recent returns the refusals of a run, the latest first.
func (h *History) Recent(cgroupID uint64) []Refusal {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Clone(h.runs[cgroupID])
	slices.Reverse(list)
	return list
}

// Forget drops what is remembered of a run that has ended.
func (h *History) Forget(cgroupID uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.runs, cgroupID)
}
