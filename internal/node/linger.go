package node

import (
	"context"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/workload"
)

// A run's last process may end while data of its sockets are still on their way:
// to the gateway, which takes what comes for a moment and then cuts, and out of
// the kernel, which goes on judging by the run's rules for a while.
const (
	drainTime  = 700 * time.Millisecond // with the tick below a second
	lingerTime = time.Minute
	lingerTick = 200 * time.Millisecond
	maxLinger  = 1024 // runs; beyond that the oldest go at once
)

// lingering are the runs that have ended and that the kernel still knows.
type lingering struct {
	kernel  *kernel.Kernel
	drained func(*workload.Run)   // the gateway has had its moment
	ended   func(kernel.Counters) // is given what a run was refused, at its very end

	mu    sync.Mutex  // guards what is below
	queue []*lingerer // oldest first
}

type lingerer struct {
	run     *workload.Run
	since   time.Time
	drained bool
}

// add keeps a run for a while.
func (l *lingering) add(run *workload.Run, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, &lingerer{run: run, since: now})
	if len(l.queue) > maxLinger {
		return l.removeFirst()
	}
	return nil
}

// removeFirst takes the oldest out of the kernel. The caller holds the lock.
func (l *lingering) removeFirst() error {
	first := l.queue[0]
	l.queue = l.queue[1:]
	l.drain(first)
	id := first.run.CgroupID
	if c, err := l.kernel.Counters(id); err == nil {
		l.ended(c)
	}
	return l.kernel.RemoveRun(id)
}

// drain ends what a run still has at the gateway. The caller holds the lock.
func (l *lingering) drain(q *lingerer) {
	if !q.drained {
		q.drained = true
		l.drained(q.run)
	}
}

// draining returns a run that has just ended, while the gateway still takes what
// it has sent.
func (l *lingering) draining(cgroupID uint64) (*workload.Run, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queue {
		if q.run.CgroupID == cgroupID && !q.drained {
			return q.run, true
		}
	}
	return nil, false
}

// expire ends what has had its time.
func (l *lingering) expire(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queue {
		if now.Sub(q.since) >= drainTime {
			l.drain(q)
		}
	}
	for len(l.queue) > 0 && now.Sub(l.queue[0].since) >= lingerTime {
		if err := l.removeFirst(); err != nil {
			return err
		}
	}
	return nil
}

// run expires until ctx ends.
func (l *lingering) run(ctx context.Context) error {
	tick := time.NewTicker(lingerTick)
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
		if c, err := l.kernel.Counters(q.run.CgroupID); err == nil {
			all = append(all, c)
		}
	}
	return all
}
