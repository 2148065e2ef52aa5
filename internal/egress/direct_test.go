package egress

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
	"github.com/varvel/varvel/internal/tool"
)

// directly is an egress rule for a name whose addresses are handed out.
func directly(name, protocol string, ports ...uint16) config.EgressRule {
	r := named(name, ports...)
	r.Direct, r.Protocol = true, protocol
	return r
}

// world is a name server on the network that keeps a log of who was asked for.
type world struct {
	address string
	mu      sync.Mutex
	asked   map[string]int
}

// newWorld serves records; a name without any does not exist.
func newWorld(t *testing.T, texts ...string) *world {
	t.Helper()
	var rrs []dns.RR
	for _, text := range texts {
		rrs = append(rrs, record(t, text))
	}
	w := &world{asked: map[string]int{}}
	w.address = serveUpstream(t, func(rw dns.ResponseWriter, q *dns.Msg) {
		name := strings.TrimSuffix(strings.ToLower(q.Question[0].Name), ".")
		w.mu.Lock()
		w.asked[name]++
		w.mu.Unlock()
		m := new(dns.Msg)
		m.SetReply(q)
		exists := false
		for _, rr := range rrs {
			if strings.EqualFold(strings.TrimSuffix(rr.Header().Name, "."), name) {
				exists = true
				if rr.Header().Rrtype == q.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if !exists {
			m.Rcode = dns.RcodeNameError
		}
		_ = rw.WriteMsg(m)
	})
	return w
}

// names returns the names that were asked for since the last call.
func (w *world) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := slices.Sorted(maps.Keys(w.asked))
	clear(w.asked)
	return list
}

// resolveWith gives the rig's server a resolver that asks the world.
func (r *rig) resolveWith(t *testing.T, w *world) {
	t.Helper()
	res, _ := newTestResolver(t, w.address)
	r.server.upstream = res
}

func (r *rig) judge(t *testing.T, dst string, proto ruleset.Protocol, want testutil.Verdict) {
	t.Helper()
	if got := r.datapath.Judge(testCgroup, netip.MustParseAddrPort(dst), proto); got != want {
		t.Errorf("protocol %d to %s: %s, want %s", proto, dst, got, want)
	}
}

func TestDirectHandsOutRealAddresses(t *testing.T) {
	w := newWorld(t,
		"turn.example.org. 30 IN A 203.0.113.7", "turn.example.org. 40 IN A 203.0.113.8",
		"turn.example.org. 30 IN AAAA 2001:db8::7", "v4.example.org. 30 IN A 203.0.113.9",
		"api.example.org. 30 IN A 203.0.113.10")
	r := newRig(t, Limits{}, agentWith(
		directly("turn.example.org", config.ProtocolUDP, 3478), directly("v4.example.org", config.ProtocolAny, 5000),
		directly("gone.example.org", config.ProtocolTCP, 443), named("api.example.org", 443)))
	r.resolveWith(t, w)
	r.judge(t, "203.0.113.7:3478", ruleset.UDP, testutil.Deny)

	m := r.ask(t, ask("TURN.example.org", dns.TypeA))
	if len(m.Answer) != 2 || m.Answer[0].Header().Name != "TURN.example.org." {
		t.Fatalf("A: %v", m)
	}
	for _, rr := range m.Answer {
		if ttl := rr.Header().Ttl; ttl < 5 || ttl > 30 {
			t.Errorf("TTL %d, want at most that of the record", ttl)
		}
	}
	if got := addrOf(t, r.ask(t, ask("turn.example.org", dns.TypeAAAA))); got.String() != "2001:db8::7" {
		t.Errorf("AAAA %s", got)
	}
	for _, dst := range []string{"203.0.113.7:3478", "203.0.113.8:3478", "[2001:db8::7]:3478"} {
		r.judge(t, dst, ruleset.UDP, testutil.Direct)
		r.judge(t, dst, ruleset.TCP, testutil.Deny)
	}
	r.judge(t, "203.0.113.7:3479", ruleset.UDP, testutil.Deny)

	if m := r.ask(t, ask("v4.example.org", dns.TypeAAAA)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 {
		t.Errorf("no AAAA: %v", m)
	}
	r.judge(t, "203.0.113.9:5000", ruleset.UDP, testutil.Direct)
	r.judge(t, "203.0.113.9:5000", ruleset.TCP, testutil.Direct)
	if m := r.ask(t, ask("gone.example.org", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("gone: %v", m)
	}
	if m := r.ask(t, ask("turn.example.org", dns.TypeTXT)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("TXT: %v", m)
	}
	if got := addrOf(t, r.ask(t, ask("api.example.org", dns.TypeA))); !IsSynthetic(got) {
		t.Errorf("a name that is not direct has the address %s", got)
	}
	if m := r.ask(t, ask("other.example.org", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("unlisted: %v", m)
	}
	want := []string{"gone.example.org", "turn.example.org", "v4.example.org"}
	if diff := cmp.Diff(want, w.names()); diff != "" {
		t.Errorf("names that have left the node: %s", diff)
	}
}

func TestDirectIsRecordedOnceForItsAddresses(t *testing.T) {
	w := newWorld(t, "a.example. 30 IN A 203.0.113.7")
	r := newRig(t, Limits{}, agentWith(directly("a.example", config.ProtocolTCP, 443)))
	r.resolveWith(t, w)
	for range 3 {
		r.ask(t, ask("a.example", dns.TypeA))
	}
	events := r.events.taken()
	if len(events) != 1 || events[0].Effect != decision.EffectAllow || events[0].Would != "" ||
		!slices.Equal(events[0].Addresses, addrs("203.0.113.7")) || events[0].Reason.Rule != "name.direct" {
		t.Errorf("events: %+v", events)
	}
	if rules := r.events.ruleSets; len(rules) != 1 || !slices.Equal(rules[0].Direct, []string{"a.example"}) {
		t.Errorf("rule set: %+v", rules)
	}
}

// No allow before a record.
func TestDirectFailsClosed(t *testing.T) {
	w := newWorld(t, "a.example. 30 IN A 203.0.113.7")
	r := newRig(t, Limits{}, agentWith(directly("a.example", config.ProtocolTCP, 443)))
	fail := func(what string, start, stop func()) {
		t.Helper()
		start()
		if m := r.ask(t, ask("a.example", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %v", what, m)
		}
		r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Deny)
		stop()
	}
	fail("no resolver", func() {}, func() { r.resolveWith(t, w) })
	fail("events broken", func() { r.events.fail(errFake) }, func() { r.events.fail(nil) })
	fail("kernel broken", func() { r.datapath.Fail(errFake) }, func() { r.datapath.Fail(nil) })
	if m := r.ask(t, ask("a.example", dns.TypeA)); m.Rcode != dns.RcodeSuccess {
		t.Errorf("control: %v", m)
	}
	r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Direct)
}

func TestDirectStaysWithin(t *testing.T) {
	w := newWorld(t,
		"in.example. 30 IN A 10.20.0.7", "in.example. 30 IN A 10.30.0.7", "in.example. 30 IN A 169.254.169.254",
		"in.example. 30 IN A 127.0.0.1", "in.example. 30 IN A 198.18.0.9", "out.example. 30 IN A 10.20.0.8",
		"out.example. 30 IN AAAA ::ffff:127.0.0.1", "out.example. 30 IN AAAA 64:ff9b::a9fe:a9fe")
	in := directly("in.example", config.ProtocolTCP, 443)
	in.Within = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
	r := newRig(t, Limits{}, agentWith(in, directly("out.example", config.ProtocolTCP, 443)))
	r.resolveWith(t, w)
	if got := addrOf(t, r.ask(t, ask("in.example", dns.TypeA))); got.String() != "10.20.0.7" {
		t.Errorf("got %s", got)
	}
	r.judge(t, "10.20.0.7:443", ruleset.TCP, testutil.Direct)
	for _, dst := range []string{"10.30.0.7:443", "169.254.169.254:443", "127.0.0.1:443", "198.18.0.9:443", "10.20.0.8:443"} {
		r.judge(t, dst, ruleset.TCP, testutil.Deny)
	}
	r.events.taken()
	m := r.ask(t, ask("out.example", dns.TypeA))
	events := r.events.taken()
	if m.Rcode != dns.RcodeNameError || len(events) != 1 || events[0].Reason.Rule != "name.within" || events[0].Effect != decision.EffectDeny {
		t.Errorf("%v; events %+v", m, events)
	}
}

func TestDirectLeaseEndsAndIsRenewed(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(directly("a.example", config.ProtocolTCP, 443)))
	synctest.Test(t, func(t *testing.T) {
		res, _ := newTestResolver(t, "192.0.2.53:53")
		withFakeAsk(res, func(_ string, qtype uint16) (records, error) {
			if qtype == dns.TypeAAAA {
				return records{}, nil
			}
			return records{addrs("203.0.113.7"), 0}, nil // the least that an upstream can say
		})
		r.server.upstream = res
		m := r.ask(t, ask("a.example", dns.TypeA))
		ttl := time.Duration(m.Answer[0].Header().Ttl) * time.Second
		if ttl != minLease {
			t.Errorf("TTL %s, want %s", ttl, minLease)
		}
		time.Sleep(ttl)
		r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Direct) // right at its end
		time.Sleep(leaseGrace)
		r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Deny)
		r.ask(t, ask("a.example", dns.TypeA))
		r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Direct)
	})
}

func TestDirectIsWithdrawnByAReload(t *testing.T) {
	w := newWorld(t, "a.example. 300 IN A 203.0.113.7", "b.example. 300 IN A 203.0.113.7", "b.example. 300 IN A 203.0.113.8")
	a, b := directly("a.example", config.ProtocolTCP, 443), directly("b.example", config.ProtocolTCP, 443, 444)
	r := newRig(t, Limits{}, agentWith(a, b))
	r.resolveWith(t, w)
	reload := func(rules ...config.EgressRule) {
		t.Helper()
		if _, err := r.Apply(t.Context(), newRun(testCgroup, agentWith(rules...))); err != nil {
			t.Fatal(err)
		}
	}
	r.ask(t, ask("a.example", dns.TypeA))
	r.ask(t, ask("b.example", dns.TypeA))
	reload(a, b)
	r.judge(t, "203.0.113.8:444", ruleset.TCP, testutil.Direct)
	reload(a, directly("b.example", config.ProtocolTCP, 443))
	r.judge(t, "203.0.113.8:443", ruleset.TCP, testutil.Direct)
	r.judge(t, "203.0.113.8:444", ruleset.TCP, testutil.Deny)
	reload(a, named("b.example", 443))
	r.judge(t, "203.0.113.8:443", ruleset.TCP, testutil.Deny)
	r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Direct) // by the other name
	if got := addrOf(t, r.ask(t, ask("b.example", dns.TypeA))); !IsSynthetic(got) {
		t.Errorf("b.example is %s", got)
	}
	reload()
	r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Deny)
}

func TestDirectLeasesAreBounded(t *testing.T) {
	r := newRig(t, Limits{Leases: 8}, agentWith(directly("**.example", config.ProtocolTCP, 443)))
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
			n++
			return addrs(fmt.Sprintf("203.0.113.%d", n)), nil
		})
		for i := range 8 {
			if m := r.ask(t, ask(fmt.Sprintf("n%d.example", i), dns.TypeA)); len(m.Answer) != 1 {
				t.Errorf("%d: %v", i, m)
			}
		}
		r.events.taken()
		m := r.ask(t, ask("more.example", dns.TypeA))
		if events := r.events.taken(); m.Rcode != dns.RcodeServerFailure || len(events) != 2 || events[1].Reason.Rule != "name.leases" {
			t.Errorf("%v; events %+v", m, events)
		}
		time.Sleep(2 * time.Minute) // all have expired
		if m := r.ask(t, ask("more.example", dns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("after the others: %v", m)
		}
		r.judge(t, fmt.Sprintf("203.0.113.%d:443", n), ruleset.TCP, testutil.Direct)
		if state, _ := r.state(testCgroup); len(state.leases.entries) > 8 {
			t.Errorf("%d leases are kept", len(state.leases.entries))
		}
	})
}

// What is reached through the gateway is never opened beside it.
func TestDirectNeverBesideTheGateway(t *testing.T) {
	w := newWorld(t, "api.example.org. 30 IN A 203.0.113.7", "www.example.org. 30 IN A 203.0.113.8", "x.example.org. 30 IN A 203.0.113.9")
	tl := &tool.Tool{Name: "api", Hosts: []tool.Host{{Name: "api.example.org", Port: 443}}}
	r := newRig(t, Limits{}, agentWith(
		directly("**.example.org", config.ProtocolTCP, 443), named("www.example.org", 443), directly("x.example.org", config.ProtocolTCP, 22),
		named("*.example.org", 80)), tl)
	r.resolveWith(t, w)
	for _, host := range []string{"api.example.org", "www.example.org"} {
		if got := addrOf(t, r.ask(t, ask(host, dns.TypeA))); !IsSynthetic(got) {
			t.Errorf("%s is %s", host, got)
		}
	}
	if got := addrOf(t, r.ask(t, ask("x.example.org", dns.TypeA))); got.String() != "203.0.113.9" {
		t.Errorf("x.example.org is %s", got)
	}
	r.judge(t, "203.0.113.9:22", ruleset.TCP, testutil.Direct)
	if plan, _ := r.Plan(testCgroup); func() bool { _, ok := plan.Name("x.example.org", 80); return ok }() {
		t.Error("the gateway reaches a direct name")
	}
	if diff := cmp.Diff([]string{"x.example.org"}, w.names()); diff != "" {
		t.Errorf("names that have left the node: %s", diff)
	}
}

func TestDirectIsPutToPolicy(t *testing.T) {
	r := newRig(t, Limits{}, agentWith())
	var asked []decision.Request
	r.options.Decider = deciderFunc(func(q decision.Request) (decision.Decision, error) {
		asked = append(asked, q)
		if q.Target.Name == "no.example" {
			return decision.Decision{Effect: decision.EffectDeny}, nil
		}
		if q.Target.Name == "broken.example" {
			return decision.Decision{Effect: decision.EffectAllow}, errors.New("no answer")
		}
		return allowAll(q)
	})
	r.resolveWith(t, newWorld(t, "no.example. 30 IN A 203.0.113.7", "yes.example. 30 IN A 203.0.113.7"))
	run := newRun(testCgroup, agentWith(
		directly("no.example", config.ProtocolUDP, 443), directly("yes.example", config.ProtocolUDP, 443),
		directly("broken.example", config.ProtocolUDP, 443), named("gateway.example", 443)))
	plan, err := r.Apply(t.Context(), run)
	if err != nil || len(plan.Refused) != 2 || len(asked) != 3 || asked[0].Target.Protocol != "udp" || asked[0].Target.Port != 443 {
		t.Fatalf("%v, %+v, asked %+v", err, plan, asked)
	}
	for host, want := range map[string]int{"no.example": dns.RcodeNameError, "yes.example": dns.RcodeSuccess, "broken.example": dns.RcodeNameError} {
		if m := r.ask(t, ask(host, dns.TypeA)); m.Rcode != want {
			t.Errorf("%s: %v", host, m)
		}
	}
}

// A search list makes names below a wildcard of names that are listed themselves.
// Those that do not exist must not be answered, or the program never asks for the
// name that it means.
func TestSearchListBelowAWildcard(t *testing.T) {
	w := newWorld(t, "db.svc.cluster.local. 30 IN A 203.0.113.7", "api.example.org.cdn.cluster.local. 30 IN A 203.0.113.8")
	r := newRig(t, Limits{}, agentWith(named("**.cluster.local", 443), named("api.example.org", 443)))
	r.resolveWith(t, w)
	for host, want := range map[string]int{
		"api.example.org.svc.cluster.local": dns.RcodeNameError, // made by a search list
		"api.example.org.cluster.local":     dns.RcodeNameError,
		"api.example.org":                   dns.RcodeSuccess,
		"api.example.org.cdn.cluster.local": dns.RcodeSuccess, // it looks the same, and exists
		"db.svc.cluster.local":              dns.RcodeSuccess,
	} {
		m := r.ask(t, ask(host, dns.TypeA))
		if m.Rcode != want || (len(m.Answer) == 1) != (want == dns.RcodeSuccess) {
			t.Errorf("%s: %v", host, m)
		}
		if len(m.Answer) == 1 && !IsSynthetic(addrOf(t, m)) {
			t.Errorf("%s: %v", host, m)
		}
	}
	if events := r.events.taken(); len(events) != 0 {
		t.Errorf("events %+v", events)
	}
	want := []string{"api.example.org.cdn.cluster.local", "api.example.org.cluster.local", "api.example.org.svc.cluster.local"}
	if diff := cmp.Diff(want, w.names()); diff != "" {
		t.Errorf("names that have left the node: %s", diff)
	}
}

// What an earlier daemon has leased goes on until the rules change, unless a name
// leads there again.
func TestRestoredLeases(t *testing.T) {
	w := newWorld(t, "a.example. 30 IN A 203.0.113.7")
	rule := directly("a.example", config.ProtocolTCP, 443)
	r := newRig(t, Limits{}, agentWith(rule))
	r.resolveWith(t, w)
	for _, at := range []string{"203.0.113.7:443", "203.0.113.8:443"} {
		to := netip.MustParseAddrPort(at)
		ports := []ruleset.PortRange{{First: 443, Last: 443, Protocol: ruleset.TCP}}
		if err := r.datapath.Lease(testCgroup, to.Addr(), ports, time.Hour); err != nil {
			t.Fatal(err)
		}
		r.RestoreLease(testCgroup, to, ruleset.TCP, time.Hour)
		r.judge(t, at, ruleset.TCP, testutil.Direct)
	}
	r.ask(t, ask("a.example", dns.TypeA))
	if _, err := r.Apply(t.Context(), newRun(testCgroup, agentWith(rule))); err != nil {
		t.Fatal(err)
	}
	r.judge(t, "203.0.113.7:443", ruleset.TCP, testutil.Direct)
	r.judge(t, "203.0.113.8:443", ruleset.TCP, testutil.Deny)
}
