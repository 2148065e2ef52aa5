package egress

import (
	"context"
	"errors"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/decision"
)

// mustObserve reports whether a question is about a name that is not listed, in
// a run whose mode lets it happen. Of names that are not listed such questions are
// the only ones that leave the node.
func (s *Server) mustObserve(q *question) bool {
	if s.upstream == nil || q.host == "" || isLocalhost(q.host) || isReverse(q.host) {
		return false
	}
	run, plan := q.state.current()
	return run.Mode == decision.ModeObserve && !plan.names.has(q.host)
}

// observe records what enforce mode would have refused, then answers with the
// name's real addresses. Of all other types it says that there are none.
func (s *Server) observe(ctx context.Context, q *question) []byte {
	if q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		q.counted(false)
		return q.negative(dns.RcodeSuccess)
	}
	q.state.count.observed.Add(1)
	event := NameEvent{Code: "NOERROR", Effect: decision.EffectAllow, Would: decision.EffectDeny, Reason: reasonUnlisted()}
	if !q.isSearch() && s.record(ctx, q, event) != nil {
		q.state.count.failed.Add(1)
		return q.failed("Varvel: " + reasonUnrecorded().Text)
	}
	addrs, _, err := s.lookup(ctx, q.host)
	if errors.Is(err, ErrNoSuchName) {
		return q.negative(dns.RcodeNameError)
	}
	if errors.Is(err, ErrNoAddress) {
		q.counted(false)
		return q.negative(dns.RcodeSuccess)
	}
	if err != nil {
		s.log.Debug("observed name not resolved", "run", q.run().Run.ID, "host", q.host, "error", err)
		return s.fail(ctx, q, reasonUpstream())
	}
	answer, ok := q.addresses(addrs)
	q.counted(ok)
	return answer
}

// observed reports whether a question that enforce would refuse is answered all
// the same, because its run is in observe mode. It is, once the event is kept.
func (s *Server) observed(ctx context.Context, q *question, reason decision.Reason) bool {
	if q.run().Mode != decision.ModeObserve {
		return false
	}
	e := NameEvent{Code: "NOERROR", Effect: decision.EffectAllow, Would: decision.EffectDeny, Reason: reason}
	return s.record(ctx, q, e) == nil
}
