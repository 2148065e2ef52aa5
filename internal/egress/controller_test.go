package egress

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
	"github.com/varvel/varvel/internal/tool"
)

func TestPlanAsksAboutEachRule(t *testing.T) {
	var asked []decision.Request
	decide := deciderFunc(func(r decision.Request) (decision.Decision, error) {
		asked = append(asked, r)
		switch r.Target.Address.String() {
		case "198.51.100.0":
			return decision.Decision{ID: "dec_2", Effect: decision.EffectDeny, Reasons: []decision.Reason{{Rule: "x", Text: "no"}}}, nil
		case "203.0.113.0":
			return decision.Decision{ID: "dec_3", Effect: decision.EffectAllow}, errFake
		}
		return decision.Decision{ID: "dec_1", Effect: decision.EffectAllow}, nil
	})
	run := newRun(1, agentWith(
		ranged("192.0.2.0/24", "tcp", config.PortRange{First: 443, Last: 443}),
		ranged("198.51.100.0/24", "udp", config.PortRange{First: 5, Last: 9}),
		ranged("203.0.113.0/24", "any"),
		named("example.org", 443),
	))
	p, err := NewPlan(t.Context(), decide, run)
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 3 {
		t.Fatalf("%d questions", len(asked))
	}
	want := decision.Request{
		Kind: decision.KindConnect, Run: run.Run, Actor: run.Actor, Action: "connect", Risk: decision.RiskRead,
		Target: decision.Target{Address: netip.MustParseAddr("192.0.2.0"), Port: 443, Protocol: "tcp"}, Preview: "192.0.2.0/24 tcp 443",
	}
	if diff := cmp.Diff(want, asked[0], cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if asked[1].Target.Port != 0 || asked[1].Preview != "198.51.100.0/24 udp 5-9" {
		t.Errorf("a rule with a range: %+v", asked[1])
	}
	if len(p.Refused) != 2 || p.Refused[0].DecisionID != "dec_2" || p.Refused[0].Reasons[0].Text != "no" || p.Refused[1].DecisionID != "dec_3" {
		t.Errorf("refused: %+v", p.Refused)
	}
	for dst, want := range map[string]bool{"192.0.2.1:443": true, "192.0.2.1:80": false, "198.51.100.1:5": false, "203.0.113.1:5": false} {
		ap := netip.MustParseAddrPort(dst)
		if p.Rules.Judge(ap.Addr(), ap.Port(), ruleset.TCP) != want {
			t.Errorf("%s: want %v", dst, want)
		}
	}
}

func TestPlanErrors(t *testing.T) {
	bad := named("example.org")
	if _, err := NewPlan(t.Context(), deciderFunc(allowAll), newRun(1, agentWith(bad))); err == nil || !strings.Contains(err.Error(), "agent tester") {
		t.Errorf("a name without ports: %v", err)
	}
	backwards := ranged("192.0.2.0/24", "tcp", config.PortRange{First: 9, Last: 8})
	if _, err := NewPlan(t.Context(), deciderFunc(allowAll), newRun(1, agentWith(backwards))); err == nil || !strings.Contains(err.Error(), "a.yaml:9") {
		t.Errorf("a range that ends before it begins: %v", err)
	}
}

func TestRulePorts(t *testing.T) {
	all := []ruleset.PortRange{{First: 0, Last: 65535, Protocol: ruleset.TCP}}
	for _, tt := range []struct {
		rule config.EgressRule
		want []ruleset.PortRange
	}{
		{ranged("::/0", ""), all},
		{ranged("::/0", "tcp"), all},
		{ranged("::/0", "any", config.PortRange{First: 1, Last: 2}), []ruleset.PortRange{
			{First: 1, Last: 2, Protocol: ruleset.TCP}, {First: 1, Last: 2, Protocol: ruleset.UDP}}},
		{ranged("::/0", "sctp", config.PortRange{First: 1, Last: 2}), nil},
		{named("a"), nil},
	} {
		if diff := cmp.Diff(tt.want, rulePorts(&tt.rule)); diff != "" {
			t.Errorf("%+v: %s", tt.rule, diff)
		}
	}
}

func TestApplyRecordsBeforeItSwitches(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(ranged("192.0.2.0/24", "tcp")))
	first := r.events.ruleSets[0]
	if first.Previous != "" || first.Entries != 1 || first.ID == "" {
		t.Errorf("first event: %+v", first)
	}
	var callsAtEvent []string
	r.events.onRule = func() { callsAtEvent = r.datapath.Calls() }
	again := newRun(testCgroup, agentWith(ranged("198.51.100.0/24", "tcp"), named("example.org", 443)))
	if _, err := r.Apply(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"load", "use", "listen", "load"}, callsAtEvent); diff != "" {
		t.Errorf("before the event was durable: %s", diff)
	}
	if second := r.events.ruleSets[1]; second.Previous != first.ID || second.Names != 1 || second.Run != again {
		t.Errorf("second event: %+v", second)
	}
	if got := r.datapath.Judge(testCgroup, netip.MustParseAddrPort("198.51.100.1:1"), ruleset.TCP); got != testutil.Direct {
		t.Errorf("the new rule set is not in force: %s", got)
	}
}

func TestApplyFailsClosed(t *testing.T) {
	old, next := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("198.51.100.1:1")
	for name, breakIt := range map[string]func(*rig){
		"events":   func(r *rig) { r.events.fail(errFake) },
		"datapath": func(r *rig) { r.datapath.Fail(errFake) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Limits{}, agentWith(ranged("192.0.2.0/24", "tcp")))
			breakIt(r)
			if plan, err := r.Apply(t.Context(), newRun(testCgroup, agentWith(ranged("198.51.100.0/24", "tcp")))); err == nil || plan != nil {
				t.Errorf("Apply = %v, %v", plan, err)
			}
			if r.datapath.Judge(testCgroup, old, ruleset.TCP) != testutil.Direct || r.datapath.Judge(testCgroup, next, ruleset.TCP) != testutil.Deny {
				t.Error("the old rule set is not in force")
			}
			if _, err := r.Apply(t.Context(), newRun(99, agentWith())); err == nil {
				t.Error("a new run was accepted")
			}
			if _, ok := r.Plan(99); ok {
				t.Error("a run without a rule set is known")
			}
		})
	}
}

func TestLookup(t *testing.T) {
	stripe := &tool.Tool{Name: "stripe", Hosts: []tool.Host{{Name: "api.example.com", Port: 443}}}
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 80)), stripe)
	v4 := addrOf(t, r.ask(t, ask("api.example.com", dns.TypeA)))
	v6 := addrOf(t, r.ask(t, ask("api.example.com", dns.TypeAAAA)))
	mapped := netip.AddrFrom16(v4.As16())
	for _, addr := range []netip.Addr{v4, v6, mapped} {
		n, ok := r.Lookup(testCgroup, netip.AddrPortFrom(addr, 443))
		if !ok || n.Host != "api.example.com" || n.Tool != stripe || n.Rule != nil {
			t.Errorf("%s:443 is %+v", addr, n)
		}
		if n, ok := r.Lookup(testCgroup, netip.AddrPortFrom(addr, 80)); !ok || n.Tool != nil || n.Rule == nil {
			t.Errorf("%s:80 is %+v", addr, n)
		}
		if n, ok := r.Lookup(testCgroup, netip.AddrPortFrom(addr, 81)); ok {
			t.Errorf("%s:81 is %+v", addr, n)
		}
		if n, ok := r.Lookup(testCgroup+1, netip.AddrPortFrom(addr, 443)); ok {
			t.Errorf("in another run %s is %+v", addr, n)
		}
	}
	if n, ok := r.Lookup(testCgroup, netip.AddrPortFrom(v4.Next(), 443)); ok {
		t.Errorf("an address without a name is %+v", n)
	}
	r.Remove(testCgroup)
	if _, ok := r.Lookup(testCgroup, netip.AddrPortFrom(v4, 443)); ok {
		t.Error("the run is gone, its names are not")
	}
}

func TestReloadOfNames(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("kept.example", 443), named("gone.example", 443)))
	kept, gone := addrOf(t, r.ask(t, ask("kept.example", dns.TypeA))), addrOf(t, r.ask(t, ask("gone.example", dns.TypeA)))
	if _, err := r.Apply(t.Context(), newRun(testCgroup, agentWith(named("kept.example", 8443)))); err != nil {
		t.Fatal(err)
	}
	if got := r.datapath.Judge(testCgroup, netip.AddrPortFrom(kept, 8443), ruleset.TCP); got != testutil.Redirect {
		t.Errorf("the new port of a name that is known is %s", got)
	}
	for dst, want := range map[netip.AddrPort]bool{
		netip.AddrPortFrom(kept, 8443): true, netip.AddrPortFrom(kept, 443): false, netip.AddrPortFrom(gone, 443): false,
	} {
		if _, ok := r.Lookup(testCgroup, dst); ok != want {
			t.Errorf("Lookup(%s) = %v, want %v", dst, ok, want)
		}
	}
	if again := addrOf(t, r.ask(t, ask("kept.example", dns.TypeA))); again != kept {
		t.Errorf("kept.example moved from %s to %s", kept, again)
	}
	if m := r.ask(t, ask("gone.example", dns.TypeA)); m.Rcode != dns.RcodeNameError {
		t.Errorf("gone.example is answered: %v", m)
	}
	if _, err := r.Apply(t.Context(), newRun(testCgroup, agentWith(named("gone.example", 443)))); err != nil {
		t.Fatal(err)
	}
	if again := addrOf(t, r.ask(t, ask("gone.example", dns.TypeA))); again != gone {
		t.Errorf("gone.example came back at %s, was at %s", again, gone)
	}
}

func TestExactNamesOutliveARestart(t *testing.T) {
	agent := agentWith(named("one.example", 443), named("two.example", 443), named("*.wild.example", 443))
	before, after := newRig(t, Limits{}, agent), newRig(t, Limits{}, agent)
	dst := netip.AddrPortFrom(addrOf(t, before.ask(t, ask("two.example", dns.TypeA))), 443)
	if n, ok := after.Lookup(testCgroup, dst); !ok || n.Host != "two.example" {
		t.Errorf("after a restart %s is %+v", dst, n)
	}
	if got := after.datapath.Judge(testCgroup, dst, ruleset.TCP); got != testutil.Deny {
		t.Errorf("the kernel was told of a name that nobody asked for: %s", got)
	}
}

func TestExactNamesLeaveRoomForWildcards(t *testing.T) {
	r := newRig(t, Limits{Names: 4}, agentWith(named("a.x", 1), named("b.x", 1), named("c.x", 1), named("*.wild.example", 443)))
	for _, name := range []string{"a.wild.example", "b.wild.example"} {
		addrOf(t, r.ask(t, ask(name, dns.TypeA)))
	}
}

func TestPlanName(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	plan, _ := r.Plan(testCgroup)
	for host, want := range map[string]bool{"API.example.com.": true, "www.example.com": false, "": false} {
		if n, ok := plan.Name(host, 443); ok != want || ok && n.Rule == nil {
			t.Errorf("%q: %+v, %v", host, n, ok)
		}
	}
}
