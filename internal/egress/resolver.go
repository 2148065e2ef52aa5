package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

// ErrNoSuchName means that the name servers say the name does not exist.
var ErrNoSuchName = errors.New("no such name")

// errLate means that a family was given up, because the other one has an answer.
var errLate = errors.New("the answer is late, and the other family has its addresses")

// ErrNoAddress means that the name exists, but has neither A nor AAAA records.
var ErrNoAddress = errors.New("the name has no address")

// Bounds of how long an answer is kept. Less than a second would ask again
// for each connection; more than five minutes would follow moves too late.
const (
	minTTL       = time.Second
	maxTTL       = 5 * time.Minute
	shortTTL     = 5 * time.Second // of "no" and of answers that lack a family
	fileTTL      = time.Minute     // of what needs no name server
	maxCached    = 4096            // names
	failureTTL   = time.Second     // of failures, so that servers in trouble are not asked by every connection (RFC 9520)
	familyDelay  = time.Second     // of one family, when the other one has its answer
	resolveLimit = 12 * time.Second
)

// ResolverOptions say where names are resolved. The zero value means: as the
// node does.
type ResolverOptions struct {
	Upstreams  []string      // address:port, in order; none: the nameservers of ResolvConf
	ResolvConf string        // default /etc/resolv.conf
	Hosts      string        // default /etc/hosts
	Timeout    time.Duration // of one question to one server; default 2 s
	Log        *slog.Logger  // required
}

// Resolver finds the addresses of names in the node's namespace: in its hosts
// file, then at its name servers. It never applies a search list. It is safe
// for concurrent use. Its Scope judges what it finds.
type Resolver struct {
	*Scope
	hosts   *watched[map[string][]netip.Addr]
	servers func() []netip.AddrPort
	timeout time.Duration
	log     *slog.Logger
	ask     func(ctx context.Context, host string, qtype uint16) (records, error) // tests replace it

	upstreams upstreams
	flight    singleflight.Group
	mu        sync.Mutex
	cache     map[string]cached
}

// cached is an answer, or that there is none.
type cached struct {
	addrs   []netip.Addr
	err     error
	expires time.Time
}

// NewResolver returns a resolver. An upstream that is not address:port is an error.
func NewResolver(o ResolverOptions) (*Resolver, error) {
	setDefault(&o.ResolvConf, "/etc/resolv.conf")
	setDefault(&o.Hosts, "/etc/hosts")
	setDefault(&o.Timeout, 2*time.Second)
	r := &Resolver{
		Scope: NewScope(), hosts: newWatched(o.Hosts, parseHosts, o.Log),
		timeout: o.Timeout, log: o.Log, cache: map[string]cached{},
	}
	r.ask = r.query
	if len(o.Upstreams) == 0 {
		r.servers = newWatched(o.ResolvConf, parseResolvConf, o.Log).get
		return r, nil
	}
	var fixed []netip.AddrPort
	for _, u := range o.Upstreams {
		server, err := netip.ParseAddrPort(u)
		if err != nil {
			return nil, fmt.Errorf("name server %q is not address:port, such as 192.0.2.1:53: %w", u, err)
		}
		fixed = append(fixed, server)
	}
	r.servers = func() []netip.AddrPort { return fixed }
	return r, nil
}

// Resolve is Lookup for those who need not know how long the answer holds.
func (r *Resolver) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, _, err := r.Lookup(ctx, host)
	return addrs, err
}

// Lookup returns the addresses of a host, IPv6 and IPv4 in turn (RFC 8305,
// section 4), and how long they hold. They are not judged yet: see Check. Returns
// an error that wraps ErrNoSuchName or ErrNoAddress if the answer is that there
// are none.
func (r *Resolver) Lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, fileTTL, nil
	}
	name, ok := CanonicalHost(host)
	if !ok {
		return nil, 0, fmt.Errorf("resolve %.80q: not a host name", host)
	}
	if addrs, ok := r.hosts.get()[name]; ok {
		return addrs, fileTTL, nil
	}
	if isLocalhost(name) {
		return []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}, fileTTL, nil
	}
	if c, ok := r.cached(name); ok {
		return c.addrs, time.Until(c.expires), c.err
	}
	c, err := r.fetch(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	return c.addrs, max(time.Until(c.expires), 0), c.err
}

// fetch asks the name servers, once for all who wait for the same name. The
// question outlives a caller that gives up, by resolveLimit at most.
func (r *Resolver) fetch(ctx context.Context, name string) (cached, error) {
	done := r.flight.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveLimit)
		defer cancel()
		return r.both(ctx, name), nil
	})
	select {
	case <-ctx.Done():
		return cached{}, fmt.Errorf("resolve %s: %w", name, context.Cause(ctx))
	case result := <-done:
		return result.Val.(cached), nil
	}
}

// both asks for A and AAAA at once, and remembers the answer.
func (r *Resolver) both(ctx context.Context, name string) cached {
	var v4, v6 records
	var err4, err6 error
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	family := func(qtype uint16, found *records, failed *error) {
		*found, *failed = r.ask(ctx, name, qtype)
		if *failed == nil && len(found.addrs) > 0 {
			// Some servers never answer for a family. The other one waits a little.
			timer := time.AfterFunc(familyDelay, func() { cancel(errLate) })
			context.AfterFunc(ctx, func() { timer.Stop() })
		}
	}
	wg.Go(func() { family(dns.TypeA, &v4, &err4) })
	wg.Go(func() { family(dns.TypeAAAA, &v6, &err6) })
	wg.Wait()
	c, keep := combine(name, v4, v6, err4, err6)
	if keep > 0 {
		c.expires = time.Now().Add(keep)
		r.remember(name, c)
	}
	return c
}

// combine makes one answer of two, and says how long it may be kept. A family
// that failed does not spoil the other one.
func combine(name string, v4, v6 records, err4, err6 error) (cached, time.Duration) {
	addrs := interleave(v6.addrs, v4.addrs)
	switch {
	case len(addrs) > 0 && err4 == nil && err6 == nil:
		return cached{addrs: addrs}, min(max(min(v4.ttl, v6.ttl), minTTL), maxTTL)
	case len(addrs) > 0:
		return cached{addrs: addrs}, min(max(v4.ttl, v6.ttl, minTTL), shortTTL) // that of the one that did not fail
	case errors.Is(err4, ErrNoSuchName) || errors.Is(err6, ErrNoSuchName):
		return cached{err: fmt.Errorf("resolve %s: %w", name, ErrNoSuchName)}, shortTTL
	case err4 != nil || err6 != nil:
		return cached{err: fmt.Errorf("resolve %s: %w", name, errors.Join(err4, err6))}, failureTTL
	}
	return cached{err: fmt.Errorf("resolve %s: %w", name, ErrNoAddress)}, shortTTL
}

// interleave takes from a and b in turn, beginning with a.
func interleave(a, b []netip.Addr) []netip.Addr {
	var mixed []netip.Addr
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			mixed = append(mixed, a[i])
		}
		if i < len(b) {
			mixed = append(mixed, b[i])
		}
	}
	return mixed
}

func (r *Resolver) cached(name string) (cached, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.cache[name]
	return c, ok && time.Now().Before(c.expires)
}

// remember keeps an answer. A full cache first loses what has expired, else
// one entry, whichever comes first: it is asked again.
func (r *Resolver) remember(name string, c cached) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cache) >= maxCached {
		now := time.Now()
		for old, entry := range r.cache {
			if !now.Before(entry.expires) {
				delete(r.cache, old)
			}
		}
	}
	for old := range r.cache {
		if len(r.cache) < maxCached {
			break
		}
		delete(r.cache, old)
	}
	r.cache[name] = c
}
