package egress

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
)

// normalNames are what providers make below names that people list by wildcard.
func normalNames() []string {
	return []string{
		"www", "registry-1", "_acme-challenge.www", "xn--bcher-kva",
		"k8s-default-myservic-0a1b2c3d4e-0123456789abcdef.elb.us-east-1", // a network load balancer
		"internal-a3f5c9e1b7d2486089fab1c2d3e4f506-1234567890.eu-west-1", // a classic one
		"d111111abcdef8", "d2k5nsl2zxldvw",
		"6ba7b810-9dad-11d1-80b4-00c04fd430c8", "550e8400-e29b-41d4-a716-446655440000.preview",
		"da39a3ee5e6b4b0d3255bfef95601890afd80709", // SHA-1 in hex
		"my-long-project-name-for-the-finance-platform-7d4b9c", "r3---sn-4g5e6nsz",
		"ec2-203-0-113-25.compute-1", "deploy-preview-1234--my-documentation-site",
		"production-cloudflare", "my-bucket-with-a-rather-long-name.s3.dualstack.eu-central-1",
	}
}

// tunnelNames are what tools make that carry data in names (iodine, dnscat2,
// dns2tcp: base32 or hex in labels of full length).
func tunnelNames(seed byte) []string {
	data := make([]byte, 200)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data) // never fails; the same each time
	b32 := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(data))
	hexed := hex.EncodeToString(data)
	return []string{
		b32[:63], b32[:63] + "." + b32[63:126] + "." + b32[126:189], b32[:50],
		hexed[:62], hexed[:50] + "." + hexed[50:100] + "." + hexed[100:150],
		strings.Repeat("a.", 60) + "a",
	}
}

func TestTunnelsAreTold(t *testing.T) {
	defaults := Limits{}.orDefaults()
	for _, part := range normalNames() {
		if reason, is := defaults.tunnels(part); is {
			t.Errorf("%s: taken for data: %s", part, reason.Rule)
		}
	}
	// A word of data can look like a name by chance, and costs the budget then.
	missed, all := 0, 0
	for seed := range byte(200) {
		for _, part := range tunnelNames(seed) {
			all++
			if _, is := defaults.tunnels(part); !is {
				missed++
			}
		}
	}
	if missed*100 > all {
		t.Errorf("%d of %d names are not taken for data", missed, all)
	}
}

func TestTunnelIsRefusedBeforeItLeaves(t *testing.T) {
	for _, direct := range []bool{false, true} {
		rule := named("**.wild.example", 443)
		rule.Direct = direct
		r := newRig(t, Limits{}, agentWith(rule, named("exact."+strings.Repeat("a", 60)+".example", 443)))
		var left atomic.Int32
		r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
			left.Add(1)
			return addrs("203.0.113.7"), nil
		})
		for _, part := range tunnelNames(0) {
			m := r.ask(t, ask(part+".wild.example", dns.TypeA))
			events := r.events.taken()
			if m.Rcode != dns.RcodeNameError || len(events) != 1 || events[0].Effect != decision.EffectDeny ||
				events[0].Reason.Rule != "name.length" && events[0].Reason.Rule != "name.entropy" {
				t.Errorf("direct %t, %s: %v, events %+v", direct, part, m, events)
			}
		}
		if n := left.Load(); n != 0 {
			t.Errorf("direct %t: %d have left", direct, n)
		}
		for _, part := range normalNames() {
			if m := r.ask(t, ask(part+".wild.example", dns.TypeA)); len(m.Answer) != 1 {
				t.Errorf("direct %t, control %s: %v", direct, part, m)
			}
		}
		if n := int(left.Load()); direct != (n == len(normalNames())) || !direct && n != 0 {
			t.Errorf("direct %t: %d names have left", direct, n)
		}
		// An exact name is the operator's.
		if m := r.ask(t, ask("exact."+strings.Repeat("a", 60)+".example", dns.TypeA)); len(m.Answer) != 1 {
			t.Errorf("exact: %v", m)
		}
	}
}

func TestBudgetOfNames(t *testing.T) {
	r := newRig(t, Limits{WildNames: 20, WildRate: 1, WildBurst: 10}, agentWith(
		named("*.wild.example", 443), named("exact.example", 443), named("exact.wild.example", 443)))
	synctest.Test(t, func(t *testing.T) {
		state, _ := r.state(testCgroup)
		state.budget = newBudget(r.options.Limits) // its clock is the bubble's
		admit := func(host, want string) {
			t.Helper()
			reason, ok := r.Admit(testCgroup, host)
			if ok != (want == "") || !ok && reason.Rule != want {
				t.Errorf("%s: %t %q, want %q", host, ok, reason.Rule, want)
			}
		}
		for i := range 10 {
			admit(fmt.Sprintf("n%d.wild.example", i), "")
		}
		admit("n10.wild.example", "name.rate")
		admit("n3.wild.example", "") // again is free
		time.Sleep(10 * time.Second)
		for i := 10; i < 20; i++ {
			admit(fmt.Sprintf("n%d.wild.example", i), "")
		}
		time.Sleep(10 * time.Second)
		admit("n20.wild.example", "name.distinct")
		for range 100 {
			admit("exact.example", "")
			admit("exact.wild.example", "")
			admit("n19.wild.example", "")
		}
		time.Sleep(time.Hour)
		admit("n20.wild.example", "")
	})
	if _, ok := r.Admit(1, "n0.wild.example"); ok {
		t.Error("a run that does not exist has a budget")
	}
}

func TestDirectKeepsToTheBudget(t *testing.T) {
	r := newRig(t, Limits{WildNames: 3, WildBurst: 100}, agentWith(directly("*.wild.example", config.ProtocolTCP, 443)))
	var left atomic.Int32
	r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
		left.Add(1)
		return addrs("203.0.113.7"), nil
	})
	for i := range 10 {
		m := r.ask(t, ask(fmt.Sprintf("n%d.wild.example", i), dns.TypeA))
		if want := i < 3; (len(m.Answer) == 1) != want {
			t.Errorf("%d: %v", i, m)
		}
	}
	events := r.events.taken()
	if last := events[len(events)-1]; last.Reason.Rule != "name.distinct" || last.Code != "SERVFAIL" || left.Load() != 3 {
		t.Errorf("%d have left, last event %+v", left.Load(), last)
	}
}

// TestWildcardsOfTheAgent: what the default refuses goes with a raised bound, and the
// bounds change with a reload, of which what was spent is still spent.
func TestWildcardsOfTheAgent(t *testing.T) {
	long, label, word := strings.Repeat("ab.", 40)+"a", strings.Repeat("ab-", 18), "abcdefghijklmnopqrstuvwxyz0123"
	for _, tt := range []struct {
		part, reason string
		raised       config.Wildcards
	}{
		{long, "name.length", config.Wildcards{Length: 200}},
		{label + "z", "name.length", config.Wildcards{Label: 63}},
		{word, "name.entropy", config.Wildcards{Entropy: 8}},
	} {
		r := newRig(t, Limits{}, agentWith(named("**.wild.example", 443)))
		q := ask(tt.part+".wild.example", dns.TypeA)
		m := r.ask(t, q)
		if events := r.events.taken(); m.Rcode != dns.RcodeNameError || len(events) != 1 || events[0].Reason.Rule != tt.reason {
			t.Errorf("%s: %v, events %+v", tt.part, m, events)
		}
		r.reload(t, tt.raised)
		if m := r.ask(t, q); len(m.Answer) != 1 || len(r.events.taken()) != 0 {
			t.Errorf("%s, raised: %v", tt.part, m)
		}
	}
}

// reload gives the rig's agent other bounds.
func (r *rig) reload(t *testing.T, w config.Wildcards) {
	t.Helper()
	agent := *r.run.Agent
	agent.Wildcards = w
	if _, err := r.Apply(t.Context(), newRun(testCgroup, &agent)); err != nil {
		t.Fatal(err)
	}
}

func TestBudgetOfTheAgent(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("*.wild.example", 443)))
	asked := 0
	admitted := func() (n int, reason string) {
		for range 4000 {
			asked++
			why, ok := r.Admit(testCgroup, fmt.Sprintf("n%d.wild.example", asked))
			if !ok {
				return n, why.Rule
			}
			n++
		}
		return n, ""
	}
	// Time goes on meanwhile, so a few more may pass.
	if n, reason := admitted(); n < 100 || n > 150 || reason != "name.rate" {
		t.Errorf("default: %d, %s", n, reason)
	}
	r.reload(t, config.Wildcards{Rate: 1, Burst: 1000})
	if n, reason := admitted(); n < 400 || n > 420 || reason != "name.distinct" {
		t.Errorf("more at once: %d, %s", n, reason)
	}
	r.reload(t, config.Wildcards{Rate: 1, Burst: 4096, Names: 1000})
	if n, reason := admitted(); n < 480 || n > 520 || reason != "name.distinct" {
		t.Errorf("more names: %d, %s", n, reason)
	}
	r.reload(t, config.Wildcards{})
	if n, reason := admitted(); n > 5 || reason != "name.rate" {
		t.Errorf("the default again: %d, %s", n, reason)
	}
}

// Observe tells what enforce would refuse, and lets it happen.
func TestTunnelInObserve(t *testing.T) {
	r := newRig(t, Limits{}, observing(named("*.wild.example", 443)))
	part := tunnelNames(0)[0]
	m := r.ask(t, ask(part+".wild.example", dns.TypeA))
	events := r.events.taken()
	if len(m.Answer) != 1 || len(events) != 1 || events[0].Would != decision.EffectDeny || events[0].Effect != decision.EffectAllow {
		t.Errorf("%v; events %+v", m, events)
	}
}
