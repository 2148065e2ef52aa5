package egress

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// reply answers a question. It always returns an answer.
func (s *Server) reply(ctx context.Context, q *question) []byte {
	switch {
	case q.name == ".":
		// Resolvers ask about the root to see whether a server works.
		q.state.count.empty.Add(1)
		return q.negative(dns.RcodeSuccess)
	case isLocalhost(q.host):
		return q.localhost()
	case isReverse(q.host):
		return q.reverse()
	case s.mustObserve(q):
		return s.observe(ctx, q)
	}
	return s.name(ctx, q)
}

// known answers a question about a host whose addresses the kernel knows, and
// returns nil for all others.
func (q *question) known() []byte {
	p, ok := q.state.known(q.host)
	if !ok {
		return nil
	}
	answer, ok := q.addresses(q.state.usable(p))
	q.counted(ok)
	return answer
}

// isLocalhost knows the names that always mean the loopback (RFC 6761, section 6.3).
func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (q *question) localhost() []byte {
	answer, ok := q.addresses([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()})
	q.counted(ok)
	return answer
}

func (q *question) counted(answered bool) {
	if answered {
		q.state.count.answered.Add(1)
		return
	}
	q.state.count.empty.Add(1)
}

// reverse answers which name an address has: that of a synthetic address of
// the run, or localhost. No other address is looked up.
func (q *question) reverse() []byte {
	host, ok := q.reverseHost()
	if !ok {
		return q.quietly()
	}
	if q.qtype != dns.TypePTR {
		q.counted(false)
		return q.negative(dns.RcodeSuccess)
	}
	q.counted(true)
	return q.pointer(host)
}

func (q *question) reverseHost() (string, bool) {
	addr, ok := reverseAddr(q.host)
	if !ok {
		return "", false
	}
	if addr.IsLoopback() {
		return "localhost", true
	}
	return q.state.host(addr)
}

// name answers a question about a host: with its synthetic address if the run
// may reach it, else that it does not exist.
func (s *Server) name(ctx context.Context, q *question) []byte {
	if reason, ok := q.tunnels(); ok && !s.observed(ctx, q, reason) {
		return s.refuse(ctx, q, reason)
	}
	if q.isAmbiguous() {
		if answer := s.absent(ctx, q); answer != nil {
			return answer
		}
	}
	p, err := q.state.addresses(q.host)
	switch {
	case errors.Is(err, errDirect):
		return s.direct(ctx, q)
	case errors.Is(err, errNotListed) && q.isSearch():
		return q.quietly()
	case errors.Is(err, errNotListed):
		return s.refuse(ctx, q, reasonUnlisted())
	case errors.Is(err, ErrNoSynthetic):
		return s.fail(ctx, q, reasonQuota())
	case errors.Is(err, ruleset.ErrShare):
		return s.fail(ctx, q, reasonShare())
	case err != nil:
		s.log.Error("name not answered", "run", q.run().Run.ID, "host", q.host, "error", err)
		return s.fail(ctx, q, reasonDatapath())
	}
	answer, ok := q.addresses(q.state.usable(p))
	q.counted(ok)
	return answer
}

// tunnels reports whether a name that only a wildcard lists looks as if it were
// made to carry data.
func (q *question) tunnels() (decision.Reason, bool) {
	_, plan := q.state.current()
	part, wild := plan.names.wild(q.host)
	if !wild {
		return decision.Reason{}, false
	}
	return q.state.budget.tunnels(part)
}

// isSearch reports whether a name looks like the work of a search list: an
// allowed name with a suffix. Service prefixes (_https._tcp) of an allowed name
// are no attempt to reach anything else either.
func (q *question) isSearch() bool {
	_, plan := q.state.current()
	base := q.host
	for strings.HasPrefix(base, "_") {
		_, rest, _ := strings.Cut(base, ".")
		base = rest
	}
	if base != q.host && plan.names.has(base) {
		return true
	}
	return plan.names.suffixed(base)
}

// suffixed reports whether a host is a listed one with a suffix.
func (t *nameTable) suffixed(host string) bool {
	for i := strings.LastIndexByte(host, '.'); i > 0; i = strings.LastIndexByte(host[:i], '.') {
		if t.has(host[:i]) {
			return true
		}
	}
	return false
}

// isAmbiguous reports whether a name that only a wildcard lists is a listed name
// with a suffix: a search list makes such names (api.example.org.svc.cluster.local),
// and content networks do. An address for one that does not exist would keep the
// program from asking for the name it means.
func (q *question) isAmbiguous() bool {
	_, plan := q.state.current()
	part, wild := plan.names.wild(q.host)
	return wild && strings.Contains(part, ".") && plan.names.suffixed(q.host)
}

// absent asks the node's name servers about an ambiguous name. It returns the
// answer that the name does not exist, or that nobody knows, and nil if it does.
func (s *Server) absent(ctx context.Context, q *question) []byte {
	if s.upstream == nil {
		return q.quietly()
	}
	if reason, ok := q.state.admit(q.host); !ok && !s.observed(ctx, q, reason) {
		return s.fail(ctx, q, reason)
	}
	_, _, err := s.lookup(ctx, q.host)
	switch {
	case err == nil || errors.Is(err, ErrNoAddress):
		return nil
	case errors.Is(err, ErrNoSuchName):
		return q.quietly()
	}
	return s.fail(ctx, q, reasonUpstream())
}

// quietly answers NXDOMAIN and counts; there is no event.
func (q *question) quietly() []byte {
	q.state.count.denied.Add(1)
	q.state.count.quiet.Add(1)
	return q.negative(dns.RcodeNameError)
}

// refuse answers NXDOMAIN, says why, and keeps an event. Nothing goes on that the
// event would have to precede, so a lost one is logged and counted, no more.
func (s *Server) refuse(ctx context.Context, q *question, reason decision.Reason) []byte {
	q.state.count.denied.Add(1)
	_ = s.record(ctx, q, NameEvent{Code: "NXDOMAIN", Effect: decision.EffectDeny, Reason: reason})
	return q.negative(dns.RcodeNameError, extendedError(dns.ExtendedErrorCodeBlocked, "Varvel: "+reason.Text))
}

// fail answers SERVFAIL, says why, and keeps an event.
func (s *Server) fail(ctx context.Context, q *question, reason decision.Reason) []byte {
	q.state.count.failed.Add(1)
	_ = s.record(ctx, q, NameEvent{Code: "SERVFAIL", Effect: decision.EffectDeny, Reason: reason})
	return q.failed("Varvel: " + reason.Text)
}

// record keeps an event, unless the run has used up its share; then the
// question is counted, and the next event tells how many there were. An error
// means that an event which should have been kept was not.
func (s *Server) record(ctx context.Context, q *question, e NameEvent) error {
	if !q.state.events.Allow() {
		q.state.count.unrecorded.Add(1)
		q.state.skipped.Add(1)
		return nil
	}
	e.Run, e.Name, e.Type = q.run(), q.name, dns.Type(q.qtype).String()
	e.Unrecorded = q.state.skipped.Swap(0)
	if err := s.controller.options.Events.Name(ctx, e); err != nil {
		q.state.count.unrecorded.Add(1)
		q.state.skipped.Add(e.Unrecorded + 1)
		s.log.Error("event of a name not kept", "run", e.Run.Run.ID, "error", err)
		return err
	}
	return nil
}

func (q *question) run() *workload.Run {
	run, _ := q.state.current()
	return run
}

// The reasons of answers. Their rules are part of the documented codes.

func reasonUnlisted() decision.Reason {
	return decision.Reason{Rule: "name.unlisted", Text: "The agent has no rule and no tool for this name."}
}

func reasonQuota() decision.Reason {
	return decision.Reason{Rule: "name.quota", Text: "The run has used as many names as it may."}
}

func reasonShare() decision.Reason {
	return decision.Reason{Rule: "name.share", Text: "The names that the run has asked for have as many ports together as one run may have."}
}

func reasonDatapath() decision.Reason {
	return decision.Reason{Rule: "name.datapath", Text: "The kernel did not accept the name, so it has no address."}
}

func reasonUpstream() decision.Reason {
	return decision.Reason{Rule: "name.upstream", Text: "The node's name servers gave no answer."}
}

func reasonUnrecorded() decision.Reason {
	return decision.Reason{Rule: "audit.unavailable", Text: "The event could not be kept, so the name is not resolved."}
}
