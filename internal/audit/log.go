package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"golang.org/x/sys/unix"
)

// Log is the open audit log of a node. It is safe for concurrent use.
type Log struct {
	dir    string
	opts   Options
	sys    system
	masker masker
	lock   *os.File

	queue  *queue
	writer *writer
	commit *committer
	spare  *spare
	news   news
	stats  stats
	fault  atomic.Pointer[error] // why nothing is taken any more

	closing sync.Once
	closed  chan struct{} // closed when both goroutines have ended
	closeOf error
}

// Append keeps e with at least the promise p. An error means that the event is
// not kept, or that nobody knows: the action must not happen. On success the
// fields of e that the log gives out are set.
//
// The log keeps a copy of e in which long text is cut and what looks like a
// secret is masked; the rest of e itself is left alone.
func (l *Log) Append(ctx context.Context, e *Event, p decision.Promise) error {
	began := time.Now()
	kept := *e
	kept.V = Version
	if kept.Time.IsZero() {
		kept.Time = began
	}
	kept.Time = kept.Time.UTC().Round(0)
	l.masker.bound(&kept)
	if err := check(&kept); err != nil {
		return err
	}
	payload, err := encode(kept)
	if err != nil {
		return err
	}
	r := &request{payload: payload, kind: kept.Kind, effect: kept.Effect, time: kept.Time, began: began, promise: p, done: make(chan error, 1)}
	if err := l.submit(ctx, r); err != nil {
		return err
	}
	e.V, e.Time = kept.V, kept.Time
	e.Seq, e.Prev, e.Hash, e.Node, e.Boot = r.seq, r.prev, r.hash, r.node, r.boot
	return nil
}

// submit hands r to the writer and waits for the answer, but not for ever.
func (l *Log) submit(ctx context.Context, r *request) error {
	durable := r.promise == decision.Durable
	if err := errors.Join(l.broken(), l.stalled(durable)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("audit event not written: %w", context.Cause(ctx))
	}
	if err := l.queue.push(r); err != nil {
		return err
	}
	deadline := time.NewTimer(l.opts.Deadline)
	defer deadline.Stop()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return gaveUp(r, context.Cause(ctx))
	case <-deadline.C:
		err := fmt.Errorf("%w: no answer from %s within %s; look at the disk and the kernel's log", errStalled, l.dir, l.opts.Deadline)
		return gaveUp(r, err)
	}
}

func gaveUp(r *request, err error) error {
	if r.withdraw() {
		return fmt.Errorf("audit event not written: %w", err)
	}
	return fmt.Errorf("audit event not confirmed, it may be in the log all the same: %w", err)
}

// Head returns the sequence number of the last event that is in the file, or 0.
func (l *Log) Head() uint64 { return l.stats.last() }

// Dir returns where the log is.
func (l *Log) Dir() string { return l.dir }

// Stats returns a copy of the counters.
func (l *Log) Stats() Stats { return l.stats.snapshot() }

// Close takes no more events, writes and syncs what is there, and lets another
// process open the log. It returns an error if the disk does not answer in
// time; what had been promised stays promised.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.queue.close()
		select {
		case <-l.closed:
			l.closeOf = l.release()
		case <-time.After(l.opts.Deadline):
			l.closeOf = fmt.Errorf("%w: the audit log in %s could not be closed within %s", errStalled, l.dir, l.opts.Deadline)
		}
	})
	return l.closeOf
}

// start runs the two goroutines. They end after the queue was closed, the
// writer first.
func (l *Log) start() {
	go func() {
		defer close(l.commit.stop)
		l.writer.run()
	}()
	go func() {
		defer close(l.closed)
		l.commit.run()
	}()
}

func (l *Log) release() error {
	err := errors.Join(l.broken(), l.writer.seg.file.Close(), l.spare.close(), l.lock.Close())
	if err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

// lockDir makes this process the only writer in dir (flock(2)). Whoever holds
// the lock keeps it until its descriptor is closed.
func lockDir(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another process writes to it; is varveld running already?")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock audit log %s: %w", dir, err), d.Close())
	}
	return d, nil
}
