// Package broker hands out short-lived tokens. A token is for one run, one
// tool and one audience. Each mint is a decision like any other, and its event
// is durable before the token is given to anybody.
//
// Tokens are cached for each run and tool. Concurrent callers share one mint,
// and a caller that gives up does not stop the mint for the others. A token is
// renewed in the background before it expires, and is never handed out after.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

const (
	// DefaultLifetime is how long a token lives if its tool does not say.
	DefaultLifetime = 5 * time.Minute
	// maxNegative is the longest time for which a failure is remembered.
	maxNegative = time.Second
	// mintTimeout bounds one mint with its decision, but not a person's answer.
	mintTimeout = 30 * time.Second
	// tombstone is how long a revoked run is remembered, so that a call which
	// began before cannot bring its tokens back.
	tombstone = time.Hour
)

// ErrRevoked is returned, wrapped, for a run whose tokens were revoked.
var ErrRevoked = errors.New("run revoked")

// ErrNoCredential is returned, wrapped, for a tool that has none configured.
var ErrNoCredential = errors.New("tool has no credential")

// Refused is the error for a token that policy does not grant.
type Refused struct{ Decision decision.Decision }

// Error implements error. It holds the decision's first reason.
func (r *Refused) Error() string {
	if len(r.Decision.Reasons) == 0 {
		return "token refused"
	}
	return "token refused: " + r.Decision.Reasons[0].Text
}

// Decider judges; *decision.Engine is one.
type Decider interface {
	Decide(ctx context.Context, r decision.Request) (decision.Decision, error)
}

// Mint is the event of a token that was made. It has the token's hash, never
// the token.
type Mint struct {
	Run        decision.Run
	Actor      decision.Actor
	Tool       string
	Audience   string
	DecisionID string
	TokenHash  string
	Expires    time.Time
}

// Journal keeps mints. RecordMint returns nil only after the event would
// survive a power loss; without that, the token is thrown away.
type Journal interface {
	RecordMint(ctx context.Context, m Mint) error
}

// Settler is told how the one execution of an approved mint ended; err is nil
// if there is a token.
type Settler interface {
	Settle(ctx context.Context, approvalID string, err error) error
}

// Lease is a token that may be used until Expires.
type Lease struct {
	Token      Secret
	Audience   string
	Expires    time.Time
	DecisionID string // of the decision under which it was minted
}

// Options are a Broker's parts. All are needed except Negative and Now, and
// Settler where no policy holds mints.
type Options struct {
	Decider  Decider
	Minter   Minter
	Journal  Journal
	Settler  Settler
	Log      *slog.Logger
	Negative time.Duration // how long a failure is remembered; default and limit 1 s
	Now      func() time.Time
}

// Broker mints, caches and revokes tokens. It is safe for concurrent use.
type Broker struct {
	opts Options
	base context.Context // ends the mints when the broker is closed
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex // guards what is below
	entries map[entryKey]*entry
	earlier []Listed             // tokens that an earlier daemon gave, not expired when they were restored
	revoked map[string]time.Time // run id → when
}

// New returns a Broker. Close ends its mints.
func New(opts Options) *Broker {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Negative <= 0 || opts.Negative > maxNegative {
		opts.Negative = maxNegative
	}
	base, stop := context.WithCancel(context.Background())
	return &Broker{opts: opts, base: base, stop: stop, entries: map[entryKey]*entry{}, revoked: map[string]time.Time{}}
}

// Close stops all mints and waits for them to end.
func (b *Broker) Close() {
	b.mu.Lock()
	b.stop()
	b.mu.Unlock()
	b.work.Wait()
}

// Token returns a token of run for tool t. Returns an error that is a *Refused
// if policy says no, or wraps ErrRevoked or ErrNoCredential; any other error
// is a failure that may pass.
//
// It returns when there is a token, or when ctx ends; a mint that ctx has
// waited for goes on for the others.
func (b *Broker) Token(ctx context.Context, run *workload.Run, t *tool.Tool) (Lease, error) {
	g, err := grantOf(t)
	if err != nil {
		return Lease{}, err
	}
	e, err := b.lookup(run, g)
	if err != nil {
		return Lease{}, err
	}
	if e.done == nil {
		return e.lease, e.err
	}
	select {
	case <-ctx.Done():
		return Lease{}, fmt.Errorf("wait for a token of tool %q: %w", t.Name, ctx.Err())
	case <-e.done:
		return b.fresh(e.result)
	}
}

// fresh refuses a lease that has ended while somebody waited for it.
func (b *Broker) fresh(r *result) (Lease, error) {
	if r.err == nil && !r.lease.Expires.After(b.opts.Now()) {
		return Lease{}, errors.New("the token expired before it could be used")
	}
	return r.lease, r.err
}

// Revoke drops every token of a run, stops its mints, and refuses new ones.
func (b *Broker) Revoke(runID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opts.Now()
	for id, at := range b.revoked {
		if now.Sub(at) > tombstone {
			delete(b.revoked, id)
		}
	}
	b.revoked[runID] = now
	b.drop(func(k entryKey) bool { return k.run == runID })
	b.earlier = slices.DeleteFunc(b.earlier, func(l Listed) bool { return l.Run == runID })
}

// Flush drops all cached tokens, so that the next call asks the policy again.
// It is for a change of policy.
func (b *Broker) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(func(entryKey) bool { return true })
}

// drop removes entries and cancels their mints. The caller holds b.mu.
func (b *Broker) drop(which func(entryKey) bool) {
	for k, e := range b.entries {
		if !which(k) {
			continue
		}
		if e.flight != nil {
			e.flight.cancel()
		}
		delete(b.entries, k)
	}
}

// Leases returns how many tokens are in use, for metrics.
func (b *Broker) Leases() int { return len(b.List()) }

// renewAt is when a lease is renewed in the background: after 60 to 80 % of
// its life, so that runs which started together do not renew together.
func renewAt(now, expires time.Time) time.Time {
	life := expires.Sub(now)
	return now.Add(life*6/10 + rand.N(life/5+1))
}
