package egress

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
)

// direct answers a question about a name whose rule says `direct: true`: with the
// real addresses, after the kernel has opened them for as long as the answer
// holds. Such questions are the only ones about listed names that leave the node
// before anybody connects.
func (s *Server) direct(ctx context.Context, q *question) []byte {
	if q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		q.counted(false)
		return q.negative(dns.RcodeSuccess)
	}
	if s.upstream == nil {
		return s.fail(ctx, q, reasonUpstream())
	}
	if reason, ok := q.state.admit(q.host); !ok {
		if !s.observed(ctx, q, reason) {
			return s.fail(ctx, q, reason)
		}
	}
	addrs, ttl, err := s.lookup(ctx, q.host)
	switch {
	case errors.Is(err, ErrNoSuchName):
		q.counted(false)
		return q.negative(dns.RcodeNameError)
	case errors.Is(err, ErrNoAddress):
		q.counted(false)
		return q.negative(dns.RcodeSuccess)
	case err != nil:
		s.log.Debug("direct name not resolved", "run", q.run().Run.ID, "host", q.host, "error", err)
		return s.fail(ctx, q, reasonUpstream())
	}
	return s.open(ctx, q, addrs, max(ttl, minLease))
}

// answerLimit is how long a question waits for the node's name servers. Resolvers
// wait 5 s (resolv.conf(5), timeout); after that nobody would read the answer.
const answerLimit = 4 * time.Second

// lookup asks the node's name servers, and gives up while the program still waits.
// What it has asked goes on, and the next question finds it answered.
func (s *Server) lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	return s.upstream.Lookup(ctx, host)
}

// open leases addresses and answers with those of the type that was asked for.
func (s *Server) open(ctx context.Context, q *question, addrs []netip.Addr, ttl time.Duration) []byte {
	for {
		_, plan := q.state.current()
		openings := plan.names.openings(q.host, addrs[:min(len(addrs), maxLeaseAddrs)], s.upstream.Snapshot())
		if len(openings) == 0 {
			return s.refuse(ctx, q, reasonScope())
		}
		if !s.recordLease(ctx, q, openings) {
			q.state.count.failed.Add(1)
			return q.failed("Varvel: " + reasonUnrecorded().Text)
		}
		done, err := q.state.lease(plan, q.host, openings, ttl+leaseGrace)
		switch {
		case !done:
			continue // a reload came between; it is seldom
		case errors.Is(err, errLeases):
			return s.fail(ctx, q, reasonLeases())
		case err != nil:
			s.log.Error("direct name not leased", "run", q.run().Run.ID, "host", q.host, "error", err)
			return s.fail(ctx, q, reasonDatapath())
		}
		opened := make([]netip.Addr, len(openings))
		for i, o := range openings {
			opened[i] = o.addr
		}
		answer, ok := q.addressesFor(opened, uint32(ttl/time.Second))
		q.counted(ok)
		return answer
	}
}

// recordLease keeps the event of a name that leads to addresses that are new for
// it. It reports false if that event should have been kept and was not.
func (s *Server) recordLease(ctx context.Context, q *question, openings []opening) bool {
	if q.state.leaseKnown(q.host, openings) {
		return true
	}
	e := NameEvent{Code: "NOERROR", Effect: decision.EffectAllow, Reason: reasonDirect()}
	for _, o := range openings {
		e.Addresses = append(e.Addresses, o.addr)
	}
	return s.record(ctx, q, e) == nil
}

func (s *runState) leaseKnown(host string, openings []opening) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.leases.known(host, openings)
}

// isDirect reports whether the addresses of a canonical host are handed out.
func (t *nameTable) isDirect(host string) bool {
	grants := t.grants(host)
	return len(grants) > 0 && grants[0].direct()
}

// IsDirect reports whether the real addresses of a host are handed out.
func (p *Plan) IsDirect(host string) bool {
	canonical, ok := CanonicalHost(host)
	return ok && p.names.isDirect(canonical)
}

// openings returns the addresses to which a direct host may lead, and the ports
// that the rules which let it lead there give.
func (t *nameTable) openings(host string, addrs []netip.Addr, check CheckFunc) []opening {
	var list []opening
	grants := t.grants(host)
	for _, addr := range addrs {
		var ports []ruleset.PortRange
		for _, g := range grants {
			if g.direct() && check(addr, g.rule.Within) == nil {
				ports = append(ports, g.ports...)
			}
		}
		if single := single(ports, ruleset.TCP, ruleset.UDP); len(single) > 0 {
			list = append(list, opening{addr, single})
		}
	}
	return list
}

// leased returns the ports at which a direct host opens an address.
func (t *nameTable) leased(host string, addr netip.Addr, check CheckFunc) []ruleset.PortRange {
	for _, o := range t.openings(host, []netip.Addr{addr}, check) {
		return o.ports
	}
	return nil
}

func reasonDirect() decision.Reason {
	return decision.Reason{Rule: "name.direct", Text: "The rule of the name is direct, so its real addresses are open for a while."}
}

func reasonScope() decision.Reason {
	return decision.Reason{Rule: "name.within", Text: "The name leads only to addresses where it may not lead; the rule's within lists private ranges that it may."}
}

func reasonLeases() decision.Reason {
	return decision.Reason{Rule: "name.leases", Text: "The run has as many leases of addresses as it may."}
}
