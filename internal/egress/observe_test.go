package egress

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
)

// upstreamFunc resolves by a function.
type upstreamFunc func(ctx context.Context, host string) ([]netip.Addr, error)

func (f upstreamFunc) Lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	addrs, err := f(ctx, host)
	return addrs, time.Minute, err
}

func (f upstreamFunc) Snapshot() CheckFunc { return NewScope().Snapshot() }

func observing(rules ...config.EgressRule) *config.Agent {
	a := agentWith(rules...)
	a.Mode = decision.ModeObserve
	return a
}

func TestObserve(t *testing.T) {
	r := newRig(t, Limits{}, observing(named("api.example.com", 443)))
	var asked []string
	r.server.upstream = upstreamFunc(func(_ context.Context, host string) ([]netip.Addr, error) {
		asked = append(asked, host)
		switch host {
		case "gone.example":
			return nil, ErrNoSuchName
		case "empty.example":
			return nil, ErrNoAddress
		case "broken.example":
			return nil, errFake
		}
		return []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")}, nil
	})
	if got := addrOf(t, r.ask(t, ask("other.example", dns.TypeA))); got.String() != "192.0.2.7" {
		t.Errorf("A is %s", got)
	}
	events := r.events.taken()
	if len(events) != 1 || events[0].Effect != decision.EffectAllow || events[0].Would != decision.EffectDeny || events[0].Code != "NOERROR" {
		t.Errorf("events: %+v", events)
	}
	if got := addrOf(t, r.ask(t, ask("other.example", dns.TypeAAAA))); got.String() != "2001:db8::7" {
		t.Errorf("AAAA is %s", got)
	}
	for name, rcode := range map[string]int{
		"gone.example": dns.RcodeNameError, "empty.example": dns.RcodeSuccess, "broken.example": dns.RcodeServerFailure,
	} {
		if m := r.ask(t, ask(name, dns.TypeA)); m.Rcode != rcode || len(m.Answer) != 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
	asked = nil
	if got := addrOf(t, r.ask(t, ask("api.example.com", dns.TypeA))); !IsSynthetic(got) {
		t.Errorf("a listed name has the address %s", got)
	}
	for name, qtype := range map[string]uint16{"localhost": dns.TypeA, "1.2.0.192.in-addr.arpa": dns.TypePTR, "other.example": dns.TypeTXT, ".": dns.TypeA} {
		r.ask(t, ask(name, qtype))
	}
	if len(asked) != 0 {
		t.Errorf("asked upstream: %v", asked)
	}
}

func TestEnforceAsksNobody(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	r.server.upstream = upstreamFunc(func(_ context.Context, host string) ([]netip.Addr, error) {
		t.Errorf("%s left the node", host)
		return nil, errFake
	})
	for _, name := range []string{"api.example.com", "other.example", "api.example.com.search.example", "localhost"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT} {
			r.ask(t, ask(name, qtype))
		}
	}
}

func TestObserveNeedsTheRecord(t *testing.T) {
	r := newRig(t, Limits{}, observing())
	r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
		t.Error("resolved without a record")
		return nil, errFake
	})
	r.events.fail(errFake)
	if m := r.ask(t, ask("other.example", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v", m)
	}
}

func TestSlowQuestionsAreBounded(t *testing.T) {
	r := newRig(t, Limits{Tasks: 1}, observing(named("api.example.com", 443)))
	started, release := make(chan struct{}), make(chan struct{})
	r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
		close(started)
		<-release
		return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil
	})
	addrOf(t, r.ask(t, ask("api.example.com", dns.TypeA)))
	server := r.serveUDP(t, "127.0.0.1:0")
	var wg sync.WaitGroup
	wg.Go(func() { addrOf(t, exchange(t, "udp", server, ask("slow.example", dns.TypeA))) })
	<-started
	silence(t, server, "next.example", func() uint64 { return r.stats(t).Limited })
	addrOf(t, exchange(t, "udp", server, ask("api.example.com", dns.TypeA))) // what is known is answered
	close(release)
	wg.Wait()
}
