package egress

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// downTime is how long a name server that has failed is asked after the others.
	downTime = 30 * time.Second
	// manyFailures in a row, of different look-ups, mean that no server answers.
	manyFailures = 3
)

// upstreams remembers how the name servers do. The zero value is ready to use;
// it is safe for concurrent use.
type upstreams struct {
	mu     sync.Mutex
	down   map[netip.AddrPort]time.Time // until when
	failed int                          // look-ups in a row to which no server had an answer
	last   error                        // of the latest of them
}

// order returns the servers, those last that have failed a moment ago: a dead
// server costs its timeout once, not with every name.
func (u *upstreams) order(servers []netip.AddrPort) []netip.AddrPort {
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	sorted := slices.Clone(servers)
	slices.SortStableFunc(sorted, func(a, b netip.AddrPort) int {
		return u.rank(a, now) - u.rank(b, now)
	})
	return sorted
}

func (u *upstreams) rank(server netip.AddrPort, now time.Time) int {
	if now.Before(u.down[server]) {
		return 1
	}
	return 0
}

// note keeps how a server did.
func (u *upstreams) note(server netip.AddrPort, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if ok {
		delete(u.down, server)
		return
	}
	if u.down == nil {
		u.down = map[netip.AddrPort]time.Time{}
	}
	if len(u.down) > 4*maxServers {
		clear(u.down) // resolv.conf names others by now
	}
	u.down[server] = time.Now().Add(downTime)
}

// result keeps whether a look-up had an answer.
func (u *upstreams) result(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.failed, u.last = 0, nil
		return
	}
	u.failed, u.last = u.failed+1, err
}

// Health returns nil if the name servers answer, else why the latest look-up
// failed, after some in a row have.
func (r *Resolver) Health() error {
	r.upstreams.mu.Lock()
	defer r.upstreams.mu.Unlock()
	if r.upstreams.failed < manyFailures {
		return nil
	}
	return r.upstreams.last
}
