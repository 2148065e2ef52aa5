package egress

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/varvel/varvel/internal/ruleset"
)

// How long a real address that was handed out for a `direct` name is open.
const (
	minLease = 5 * time.Second // the least time to live that is answered
	// leaseGrace is how much longer the kernel lets connect: a program that asks
	// just before the answer expires still has to try the addresses in turn.
	leaseGrace    = 15 * time.Second
	maxLeaseAddrs = 16 // addresses of one name that are handed out
	maxLeaseHosts = 16 // names that are remembered for one address
)

// errLeases means that the run has as many leases as it may have.
var errLeases = errors.New("the run has used up its leases")

// Leaser opens real addresses to runs for a while; testutil.ConformDatapath is
// the contract as a test.
type Leaser interface {
	// Lease lets a run reach an address directly at single ports until period has
	// passed. What it has opened goes on after that.
	Lease(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange, period time.Duration) error
	// Withdraw ends leases at once, also for what they have opened.
	Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error
}

// leaseKey is one entry of the kernel's table.
type leaseKey struct {
	addr     netip.Addr
	port     uint16
	protocol ruleset.Protocol
}

func (k leaseKey) ports() []ruleset.PortRange {
	return []ruleset.PortRange{{First: k.port, Last: k.port, Protocol: k.protocol}}
}

// lease is what is known of one entry.
type lease struct {
	until time.Time
	hosts map[string]struct{} // the names that led to it
}

// leaseTable holds the leases of one run. Expired ones stay as long as there is
// room: a connection that they opened goes on. It is not safe for concurrent use.
type leaseTable struct {
	limit   int
	entries map[leaseKey]*lease
}

// opening is an address that a name led to, and the ports that its rules give.
type opening struct {
	addr  netip.Addr
	ports []ruleset.PortRange
}

func (o opening) keys() []leaseKey {
	var keys []leaseKey
	for _, p := range o.ports {
		for n := int(p.First); n <= int(p.Last); n++ {
			keys = append(keys, leaseKey{o.addr, uint16(n), p.Protocol})
		}
	}
	return keys
}

// known reports whether a host has led to all of these addresses before.
func (t *leaseTable) known(host string, openings []opening) bool {
	for _, o := range openings {
		for _, k := range o.keys() {
			l, ok := t.entries[k]
			if !ok {
				return false
			}
			if _, ok := l.hosts[host]; !ok {
				return false
			}
		}
	}
	return true
}

// excess returns expired entries that make room for the openings, those that
// ended first; more than are needed, so that it is seldom done. Returns errLeases
// if there are not enough.
func (t *leaseTable) excess(openings []opening, now time.Time) ([]leaseKey, error) {
	missing := len(t.entries) - t.limit
	for _, o := range openings {
		for _, k := range o.keys() {
			if _, ok := t.entries[k]; !ok {
				missing++
			}
		}
	}
	if missing <= 0 {
		return nil, nil
	}
	var old []leaseKey
	for k, l := range t.entries {
		if !now.Before(l.until) {
			old = append(old, k)
		}
	}
	if len(old) < missing {
		return nil, errLeases
	}
	slices.SortFunc(old, func(a, b leaseKey) int { return t.entries[a].until.Compare(t.entries[b].until) })
	return old[:max(missing, min(len(old), t.limit/4))], nil
}

// put notes a lease and returns until when it holds: a name never shortens what
// another one has opened.
func (t *leaseTable) put(k leaseKey, host string, until time.Time) time.Time {
	l, ok := t.entries[k]
	if !ok {
		l = &lease{hosts: map[string]struct{}{}}
		t.entries[k] = l
	}
	if until.After(l.until) {
		l.until = until
	}
	if len(l.hosts) < maxLeaseHosts {
		l.hosts[host] = struct{}{}
	}
	return l.until
}

// lease opens addresses for a host, under the plan by which they were judged.
// It reports false, and does nothing, if another plan is in force by now.
func (s *runState) lease(plan *Plan, host string, openings []opening, period time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan != plan {
		return false, nil
	}
	now := time.Now()
	old, err := s.leases.excess(openings, now)
	if err != nil {
		return true, err
	}
	if err := s.withdraw(s.leaser, old); err != nil {
		return true, err
	}
	for _, o := range openings {
		until := now
		for _, k := range o.keys() {
			if at := s.leases.put(k, host, now.Add(period)); at.After(until) {
				until = at
			}
		}
		if err := s.leaser.Lease(s.run.CgroupID, o.addr, o.ports, until.Sub(now)); err != nil {
			return true, fmt.Errorf("lease an address of %s: %w", host, err)
		}
	}
	return true, nil
}

// RestoreLease tells of a lease that a run has from an earlier daemon. By which name
// is not known, so the next change of the run's rules withdraws it, unless a name has
// led there again by then.
func (c *Controller) RestoreLease(cgroupID uint64, at netip.AddrPort, protocol ruleset.Protocol, left time.Duration) {
	state, ok := c.state(cgroupID)
	if !ok {
		return
	}
	state.mu.Lock()
	defer state.mu.Unlock()
	key := leaseKey{at.Addr().Unmap(), at.Port(), protocol}
	if _, ok := state.leases.entries[key]; !ok {
		state.leases.entries[key] = &lease{until: time.Now().Add(left), hosts: map[string]struct{}{}}
	}
}

// withdrawer is a Leaser, or what many runs change together.
type withdrawer interface {
	Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error
}

// withdraw ends leases. The caller locks.
func (s *runState) withdraw(from withdrawer, keys []leaseKey) error {
	slices.SortFunc(keys, func(a, b leaseKey) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol))
	})
	var errs []error
	for len(keys) > 0 {
		n, ports := 0, []ruleset.PortRange(nil)
		for n < len(keys) && keys[n].addr == keys[0].addr {
			ports = append(ports, keys[n].ports()...)
			n++
		}
		if err := from.Withdraw(s.run.CgroupID, keys[0].addr, ports); err != nil {
			errs = append(errs, fmt.Errorf("withdraw leases of %s: %w", keys[0].addr, err))
		}
		for _, k := range keys[:n] {
			delete(s.leases.entries, k)
		}
		keys = keys[n:]
	}
	return errors.Join(errs...)
}

// ungranted returns the leases that no host has under the plan in force any
// more, and forgets the hosts that have lost theirs. The caller locks.
func (s *runState) ungranted() []leaseKey {
	type led struct {
		host string
		addr netip.Addr
	}
	var gone []leaseKey
	if len(s.leases.entries) == 0 {
		return nil
	}
	check, granted := s.snapshot(), map[led][]ruleset.PortRange{}
	for k, l := range s.leases.entries {
		for host := range l.hosts {
			to := led{host, k.addr}
			if _, ok := granted[to]; !ok {
				granted[to] = s.plan.names.leased(host, k.addr, check)
			}
			if !ruleset.AllowsPort(granted[to], k.port, k.protocol) {
				delete(l.hosts, host)
			}
		}
		if len(l.hosts) == 0 {
			gone = append(gone, k)
		}
	}
	return gone
}
