package audit

import (
	"sync"
	"sync/atomic"
	"time"
)

// watch knows for how long an operation has been under way.
type watch struct {
	base  time.Time
	since atomic.Int64 // nanoseconds after base, plus 1; 0 if nothing is under way
}

func newWatch() *watch { return &watch{base: time.Now()} }

func (w *watch) start() { w.since.Store(int64(time.Since(w.base)) + 1) }
func (w *watch) stop()  { w.since.Store(0) }

// longer reports whether what is under way has taken more than d.
func (w *watch) longer(d time.Duration) bool {
	s := w.since.Load()
	return s != 0 && time.Since(w.base)-time.Duration(s) > d
}

// news wakes everybody who waits for a change.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that is closed at the next change.
func (n *news) next() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
