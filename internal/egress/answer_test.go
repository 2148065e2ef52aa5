package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
	"github.com/varvel/varvel/internal/workload"
)

func TestAllowedName(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443), named("*.pkg.example", 443)))
	for _, name := range []string{"api.example.com", "a.pkg.example"} {
		v4, v6 := addrOf(t, r.ask(t, ask(name, dns.TypeA))), addrOf(t, r.ask(t, ask(name, dns.TypeAAAA)))
		if !Synthetic4().Contains(v4) || !Synthetic6().Contains(v6) {
			t.Errorf("%s has %s and %s", name, v4, v6)
		}
		for _, addr := range []netip.Addr{v4, v6} {
			if got := r.datapath.Judge(testCgroup, netip.AddrPortFrom(addr, 443), ruleset.TCP); got != testutil.Redirect {
				t.Errorf("%s at %s: %s", name, addr, got)
			}
		}
		if again := addrOf(t, r.ask(t, ask(name, dns.TypeA))); again != v4 {
			t.Errorf("%s moved from %s to %s", name, v4, again)
		}
	}
	if events := r.events.taken(); len(events) != 0 {
		t.Errorf("events: %+v", events)
	}
}

func TestAnswerHeader(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	q := ask("aPi.ExamPLE.com", dns.TypeA)
	q.CheckingDisabled = true
	q.IsEdns0().SetDo()
	m := r.ask(t, q)
	if m.Id != q.Id || !m.Response || !m.RecursionDesired || !m.RecursionAvailable || !m.CheckingDisabled || m.Authoritative || m.AuthenticatedData {
		t.Errorf("header %v", m.MsgHdr)
	}
	if m.Question[0].Name != "aPi.ExamPLE.com." || m.Answer[0].Header().Name != "aPi.ExamPLE.com." {
		t.Errorf("the case of the letters is lost: %v", m)
	}
	if opt := m.IsEdns0(); opt == nil || !opt.Do() || opt.UDPSize() != maxUDP {
		t.Errorf("OPT %v", opt)
	}
	if ttl := m.Answer[0].Header().Ttl; ttl != answerTTL {
		t.Errorf("TTL %d", ttl)
	}
	q.Extra = nil
	if m := r.ask(t, q); m.IsEdns0() != nil {
		t.Error("OPT for a client without EDNS")
	}
}

func TestOtherTypesOfAnAllowedNameAreEmpty(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	types := []uint16{dns.TypeHTTPS, dns.TypeSVCB, dns.TypeMX, dns.TypeTXT, dns.TypeCNAME, dns.TypeSRV, dns.TypeANY, dns.TypeNS, dns.TypeDS, 65280}
	for _, qtype := range types {
		m := r.ask(t, ask("api.example.com", qtype))
		if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA {
			t.Errorf("%s: %v", dns.Type(qtype), m)
		}
	}
	if s := r.stats(t); s.Empty != uint64(len(types)) || s.Denied != 0 {
		t.Errorf("%+v", s)
	}
}

func TestUnlistedName(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	m := r.ask(t, ask("Evil.example.net", dns.TypeAAAA))
	if m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
		t.Fatalf("answer %v", m)
	}
	soa, ok := m.Ns[0].(*dns.SOA)
	if !ok || soa.Hdr.Ttl != negativeTTL || soa.Minttl != negativeTTL {
		t.Errorf("SOA %v", m.Ns)
	}
	ede, ok := m.IsEdns0().Option[0].(*dns.EDNS0_EDE)
	if !ok || ede.InfoCode != dns.ExtendedErrorCodeBlocked || !strings.HasPrefix(ede.ExtraText, "Varvel: ") {
		t.Errorf("extended error %v", m.IsEdns0())
	}
	want := []NameEvent{{
		Run: r.run, Name: "Evil.example.net.", Type: "AAAA", Code: "NXDOMAIN",
		Effect: decision.EffectDeny, Reason: reasonUnlisted(),
	}}
	if diff := cmp.Diff(want, r.events.taken(), cmp.Comparer(func(a, b *workload.Run) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	q := ask("evil.example.net", dns.TypeA)
	q.Extra = nil
	if m := r.ask(t, q); m.Rcode != dns.RcodeNameError || m.IsEdns0() != nil {
		t.Errorf("without EDNS: %v", m)
	}
	if calls := r.datapath.Calls(); slices.Contains(calls, "name") {
		t.Error("the kernel was told of an unlisted name")
	}
}

func TestNamesThatAreNoHostNames(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("**.example.com", 443)))
	for _, name := range []string{`a\.b.example.com.`, `a\000.example.com.`, "a b.example.com.", `\255.example.com.`, "*.example.com."} {
		if m := r.ask(t, ask(name, dns.TypeA)); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
	addrOf(t, r.ask(t, ask("a.example.com", dns.TypeA))) // the control
}

func TestSearchListsAreQuiet(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443), named("db", 5432)))
	quiet := []string{
		"api.example.com.default.svc.cluster.local", "api.example.com.svc.cluster.local", "api.example.com.cluster.local",
		"db.cluster.local", "_https._tcp.api.example.com", "_8443._https.api.example.com.cluster.local",
	}
	for _, name := range quiet {
		if m := r.ask(t, ask(name, dns.TypeA)); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
	if events := r.events.taken(); len(events) != 0 {
		t.Errorf("events: %+v", events)
	}
	if s := r.stats(t); s.Quiet != uint64(len(quiet)) || s.Denied != s.Quiet || s.Unrecorded != 0 {
		t.Errorf("%+v", s)
	}
	loud := []string{"example.com", "xapi.example.com.cluster.local", "www.api.example.net", "_tcp.evil.example", "_x"}
	for _, name := range loud {
		r.ask(t, ask(name, dns.TypeA))
	}
	if events := r.events.taken(); len(events) != len(loud) {
		t.Errorf("%d events, want %d", len(events), len(loud))
	}
}

func TestLocalhost(t *testing.T) {
	r := newRig(t, Limits{}, agentWith())
	for _, name := range []string{"localhost", "LOCALHOST", "a.localhost"} {
		if got := addrOf(t, r.ask(t, ask(name, dns.TypeA))); got.String() != "127.0.0.1" {
			t.Errorf("%s is %s", name, got)
		}
		if got := addrOf(t, r.ask(t, ask(name, dns.TypeAAAA))); got.String() != "::1" {
			t.Errorf("%s is %s", name, got)
		}
	}
	if m := r.ask(t, ask("localhost", dns.TypeMX)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("MX of localhost: %v", m)
	}
	if m := r.ask(t, ask("notlocalhost", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("notlocalhost: %v", m)
	}
}

func TestReverse(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		addr := addrOf(t, r.ask(t, ask("api.example.com", qtype)))
		reverse, err := dns.ReverseAddr(addr.String())
		if err != nil {
			t.Fatal(err)
		}
		m := r.ask(t, ask(reverse, dns.TypePTR))
		if len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != "api.example.com." {
			t.Errorf("%s: %v", addr, m)
		}
		if m := r.ask(t, ask(reverse, dns.TypeTXT)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
			t.Errorf("TXT of %s: %v", reverse, m)
		}
	}
	for _, addr := range []string{"127.0.0.1", "::1"} {
		reverse, _ := dns.ReverseAddr(addr)
		if m := r.ask(t, ask(reverse, dns.TypePTR)); len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != "localhost." {
			t.Errorf("%s: %v", addr, m)
		}
	}
	for _, name := range []string{
		"1.2.0.192.in-addr.arpa", "1.0.18.198.in-addr.arpa", "2.0.192.in-addr.arpa", "256.2.0.192.in-addr.arpa",
		"01.2.0.192.in-addr.arpa", "x.in-addr.arpa", "x.ip6.arpa", strings.Repeat("f.", 31) + "ff.ip6.arpa",
	} {
		if m := r.ask(t, ask(name, dns.TypePTR)); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
	if events := r.events.taken(); len(events) != 0 {
		t.Errorf("events: %+v", events)
	}
}

func TestRootIsEmpty(t *testing.T) {
	r := newRig(t, Limits{}, agentWith())
	if m := r.ask(t, ask(".", dns.TypeNS)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 0 {
		t.Errorf("%v", m)
	}
	if events := r.events.taken(); len(events) != 0 {
		t.Errorf("events: %+v", events)
	}
}

func TestFullDatapath(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	r.datapath.Fail(testutil.ErrFull)
	m := r.ask(t, ask("api.example.com", dns.TypeA))
	if m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 {
		t.Fatalf("answer %v", m)
	}
	events := r.events.taken()
	if len(events) != 1 || events[0].Code != "SERVFAIL" || events[0].Reason.Rule != "name.datapath" {
		t.Errorf("events: %+v", events)
	}
	r.datapath.Fail(nil)
	addrOf(t, r.ask(t, ask("api.example.com", dns.TypeA)))
}

func TestNameQuota(t *testing.T) {
	r := newRig(t, Limits{Names: 3}, agentWith(named("*.example.com", 443)))
	for i := range 3 {
		addrOf(t, r.ask(t, ask(fmt.Sprintf("h%d.example.com", i), dns.TypeA)))
	}
	m := r.ask(t, ask("h3.example.com", dns.TypeA))
	if m.Rcode != dns.RcodeServerFailure {
		t.Errorf("over the quota: %v", m)
	}
	if events := r.events.taken(); len(events) != 1 || events[0].Reason.Rule != "name.quota" {
		t.Errorf("events: %+v", events)
	}
	addrOf(t, r.ask(t, ask("h2.example.com", dns.TypeA))) // those that have an address keep it
}

func TestEventsAreBoundedAndCounted(t *testing.T) {
	r := newRig(t, Limits{Events: 1e-9, EventBurst: 2}, agentWith())
	for i := range 10 {
		r.ask(t, ask(fmt.Sprintf("x%d.example", i), dns.TypeA))
	}
	if events := r.events.taken(); len(events) != 2 {
		t.Errorf("%d events", len(events))
	}
	if s := r.stats(t); s.Denied != 10 || s.Unrecorded != 8 || s.Queries != 10 {
		t.Errorf("%+v", s)
	}
	state, _ := r.state(testCgroup)
	state.events.SetBurst(100)
	state.events.SetLimit(1e9)
	r.ask(t, ask("last.example", dns.TypeA))
	if events := r.events.taken(); len(events) != 1 || events[0].Unrecorded != 8 {
		t.Errorf("the next event does not tell of those left out: %+v", events)
	}
}

func TestLostEventIsTold(t *testing.T) {
	r := newRig(t, Limits{}, agentWith())
	r.events.fail(errFake)
	if m := r.ask(t, ask("a.example", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("%v", m)
	}
	r.events.fail(nil)
	r.ask(t, ask("b.example", dns.TypeA))
	if events := r.events.taken(); len(events) != 1 || events[0].Unrecorded != 1 {
		t.Errorf("events: %+v", events)
	}
	if s := r.stats(t); s.Unrecorded != 1 {
		t.Errorf("%+v", s)
	}
}

// TestShareOfNames: a run that has its share of the kernel's table is told so.
func TestShareOfNames(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	r.datapath.Fail(fmt.Errorf("names: %w", ruleset.ErrShare))
	if m := r.ask(t, ask("api.example.com", dns.TypeA)); m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 {
		t.Fatalf("answer %v", m)
	}
	if events := r.events.taken(); len(events) != 1 || events[0].Code != "SERVFAIL" || events[0].Reason.Rule != "name.share" {
		t.Errorf("events: %+v", events)
	}
	r.datapath.Fail(nil)
	addrOf(t, r.ask(t, ask("api.example.com", dns.TypeA)))
}
