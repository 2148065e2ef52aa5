package gateway

import (
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/varvel/varvel/internal/decision"
)

var (
	errTooMany = errors.New("the gateway has as many connections as it may have")
	errRunFull = errors.New("the run has as many connections as it may have")
	errRevoked = errors.New("the run was revoked")
)

// limitReason explains an error of acquire.
func limitReason(err error) decision.Reason {
	rule := "connection-limit"
	if errors.Is(err, errRevoked) {
		rule = "revoked"
	}
	return decision.Reason{Rule: rule, Text: err.Error()}
}

// limiter bounds concurrent connections, for each run and in total, and can
// end those of one run.
type limiter struct {
	total, perRun int

	mu      sync.Mutex // guards what is below
	n       int
	runs    map[string]*runConns
	revoked map[string]struct{}
	order   []string // of revocation, to bound revoked
}

// runConns are the open connections of one run.
type runConns struct {
	n     int
	conns map[*liveConn]struct{}
}

// liveConn is an open connection.
type liveConn struct {
	dst    netip.AddrPort // what the program asked for
	cancel context.CancelFunc
}

// maxRevoked is how many revoked runs are remembered. A run is soon gone from
// the registry too; this covers the time between.
const maxRevoked = 4096

func newLimiter(total, perRun int) *limiter {
	return &limiter{total: total, perRun: perRun, runs: map[string]*runConns{}, revoked: map[string]struct{}{}}
}

// acquire counts a connection to dst in. The context that it returns ends when
// ctx does, when release is called, when the run is revoked, or when cut picks
// the connection. With an error it returns ctx itself.
func (l *limiter) acquire(ctx context.Context, run string, dst netip.AddrPort) (context.Context, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.revoked[run]; ok {
		return ctx, nil, errRevoked
	}
	if l.n >= l.total {
		return ctx, nil, errTooMany
	}
	r := l.runs[run]
	if r == nil {
		r = &runConns{conns: map[*liveConn]struct{}{}}
	}
	if r.n >= l.perRun {
		return ctx, nil, errRunFull
	}
	ctx, cancel := context.WithCancel(ctx)
	l.runs[run] = r
	l.n++
	r.n++
	c := &liveConn{dst, cancel}
	r.conns[c] = struct{}{}
	return ctx, func() { l.release(run, r, c) }, nil
}

func (l *limiter) release(run string, r *runConns, c *liveConn) {
	c.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	r.n--
	delete(r.conns, c)
	if r.n == 0 {
		delete(l.runs, run)
	}
}

func (l *limiter) revoke(run string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.revoked[run]; !ok {
		l.revoked[run] = struct{}{}
		l.order = append(l.order, run)
	}
	if len(l.order) > maxRevoked {
		delete(l.revoked, l.order[0])
		l.order = l.order[1:]
	}
	l.cutLocked(run, func(netip.AddrPort) bool { return false })
}

// cut ends the connections of a run whose destination keep does not want, and
// returns how many there were. keep must not call the limiter.
func (l *limiter) cut(run string, keep func(netip.AddrPort) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cutLocked(run, keep)
}

func (l *limiter) cutLocked(run string, keep func(netip.AddrPort) bool) (n int) {
	r := l.runs[run]
	if r == nil {
		return 0
	}
	for c := range r.conns {
		if !keep(c.dst) {
			c.cancel()
			n++
		}
	}
	return n
}

func (l *limiter) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}
