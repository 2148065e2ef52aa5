package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/varvel/varvel/internal/workload"
)

// entryKey names a cached token. The tool's revision is part of it: a token
// that was minted under another definition is never used.
type entryKey struct {
	run, tool, revision, audience string
}

// entry is what is known about one token: the lease in use, the last failure,
// and the mint that is under way. Broker.mu guards it.
type entry struct {
	lease    Lease
	renew    time.Time // when to renew the lease in the background
	err      error     // the last mint's failure
	errUntil time.Time // until when it is remembered
	flight   *flight
}

// flight is one mint. result may be read after done is closed.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc
	result *result
}

type result struct {
	lease Lease
	err   error
}

// answer is either there at once (done is nil) or comes with a flight.
type answer struct {
	lease  Lease
	err    error
	done   chan struct{}
	result *result
}

// lookup answers from the cache, or joins the mint under way, or starts one.
func (b *Broker) lookup(run *workload.Run, g grant) (answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.revoked[run.ID]; ok {
		return answer{}, fmt.Errorf("%w: %s gets no more tokens", ErrRevoked, run.ID)
	}
	if err := b.base.Err(); err != nil {
		return answer{}, fmt.Errorf("broker closed: %w", err)
	}
	key := entryKey{run: run.ID, tool: g.tool, revision: g.revision, audience: g.audience}
	e, ok := b.entries[key]
	if !ok {
		b.drop(key.superseded)
		e = &entry{}
		b.entries[key] = e
	}
	now := b.opts.Now()
	live := e.lease.Expires.After(now)
	failed := e.err != nil && now.Before(e.errUntil)
	if e.flight == nil && !failed && (!live || !now.Before(e.renew)) {
		b.start(key, e, run, g)
	}
	switch {
	case live:
		return answer{lease: e.lease}, nil
	case e.flight != nil:
		return answer{done: e.flight.done, result: e.flight.result}, nil
	default:
		return answer{err: e.err}, nil
	}
}

// whyDropped explains a mint whose entry went away. The caller holds b.mu.
func (b *Broker) whyDropped(run string) error {
	if _, ok := b.revoked[run]; ok {
		return fmt.Errorf("%w: %s gets no more tokens", ErrRevoked, run)
	}
	return errors.New("the policy or the tool changed while the token was minted; ask again")
}

// superseded reports whether o is the same token under an older definition.
func (k entryKey) superseded(o entryKey) bool { return o.run == k.run && o.tool == k.tool && o != k }

// start begins a mint that belongs to the broker, not to the caller. The
// caller holds b.mu.
func (b *Broker) start(key entryKey, e *entry, run *workload.Run, g grant) {
	ctx, cancel := context.WithCancel(b.base)
	f := &flight{done: make(chan struct{}), cancel: cancel, result: &result{}}
	e.flight = f
	b.work.Go(func() {
		defer cancel()
		lease, err := b.mint(ctx, run, g)
		b.finish(key, e, f, lease, err)
	})
}

// finish publishes the result of a mint. If the entry was dropped meanwhile,
// nobody gets the token.
func (b *Broker) finish(key entryKey, e *entry, f *flight, lease Lease, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(f.done)
	if b.entries[key] != e {
		lease, err = Lease{}, b.whyDropped(key.run)
	}
	*f.result = result{lease: lease, err: err}
	now := b.opts.Now()
	e.flight, e.err = nil, err
	if err != nil {
		e.errUntil = now.Add(b.opts.Negative)
		if refused := new(Refused); errors.As(err, &refused) {
			e.lease = Lease{} // policy has changed its mind
		}
		return
	}
	e.lease, e.renew = lease, renewAt(now, lease.Expires)
}
