package node

import (
	"context"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/kernel"
)

// A run's last process may end while the kernel still has data of its sockets to
// send. The kernel goes on judging it by the run's rules for this long; the
// daemon has forgotten the run by then.
const (
	lingerTime = time.Minute
	maxLinger  = 1024 // runs; beyond that the oldest go at once
)

// lingering are the runs that have ended and that the kernel still knows.
type lingering struct {
	kernel *kernel.Kernel
	ended  func(kernel.Counters) // is given what a run was refused, at its very end

	mu    sync.Mutex
	queue []lingerer // oldest first
}

type lingerer struct {
	cgroupID uint64
	until    time.Time
}

// add keeps a run in the kernel for a while.
func (l *lingering) add(cgroupID uint64, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, lingerer{cgroupID, now.Add(lingerTime)})
	if len(l.queue) > maxLinger {
		return l.removeFirst()
	}
	return nil
}

// removeFirst takes the oldest out of the kernel. The caller holds the lock.
func (l *lingering) removeFirst() error {
	id := l.queue[0].cgroupID
	l.queue = l.queue[1:]
	if c, err := l.kernel.Counters(id); err == nil {
		l.ended(c)
	}
	return l.kernel.RemoveRun(id)
}

// expire takes out those whose time is over.
func (l *lingering) expire(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && !now.Before(l.queue[0].until) {
		if err := l.removeFirst(); err != nil {
			return err
		}
	}
	return nil
}

// run expires until ctx ends.
func (l *lingering) run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := l.expire(now); err != nil {
				return err
			}
		}
	}
}

// counters of the runs that linger, for metrics.
func (l *lingering) counters() []kernel.Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []kernel.Counters
	for _, q := range l.queue {
		if c, err := l.kernel.Counters(q.cgroupID); err == nil {
			all = append(all, c)
		}
	}
	return all
}
