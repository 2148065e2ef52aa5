package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// tunnelLabel is data in a name, as tools that tunnel through DNS make it.
const tunnelLabel = "nb2hi4dthixs6zlymfwxa3dffzrw63jpon2gs3df4xq2lom5sxo"

const (
	ruleDirect = `{ name: direct.e2e.test, ports: [7000], direct: true }`
	ruleRelay  = `{ name: relay.e2e.test, ports: [7000], protocol: udp, direct: true }`
	ruleWild   = `{ name: "*.wild.e2e.test", ports: [7000], opaque: true }`
)

// finds returns the addresses that a resolver finds in a run for a name.
func (n *node) finds(r resolver, name string) []string {
	n.t.Helper()
	fields := strings.Fields(n.must(alice, n.run("bot", append(slices.Clone(r.argv), name)...)...))
	if len(fields) == 0 || fields[0] != name {
		n.t.Fatalf("%s: %q is not about %s", r.name, fields, name)
	}
	return fields[1:]
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// denials are the events of connections that the kernel refused.
func (n *node) denials() []audit.Event {
	var list []audit.Event
	for _, e := range n.events("--kind", "connect") {
		if e.Effect == decision.EffectDeny {
			list = append(list, e)
		}
	}
	return list
}

// TestDirect lets programs reach the real addresses of names, over TCP and UDP.
func TestDirect(t *testing.T) {
	n := newRealm(t, "getent", "python3").newNode(t, options{files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleDirect, ruleRelay, ruleName)}})
	for _, r := range resolvers(t, n.dir) {
		for _, name := range []string{"direct.e2e.test", "relay.e2e.test"} {
			got := n.finds(r, name)
			if !slices.Contains(got, v4(hostNamed).String()) && !slices.Contains(got, v6(hostNamed).String()) {
				t.Errorf("%s: %s is %v", r.name, name, got)
			}
		}
		if got := n.finds(r, "exact.e2e.test"); len(got) == 0 || slices.Contains(got, v4(hostNamed).String()) {
			t.Errorf("%s: a name that is not direct is %v", r.name, got)
		}
		if got := n.finds(r, "other.e2e.test"); slices.ContainsFunc(got, isAddress) {
			t.Errorf("%s: a name that is not listed is %v", r.name, got)
		}
	}
	if got := n.denials(); len(got) != 0 {
		t.Errorf("resolvers have only looked for routes, and %d refusals are recorded: %+v", len(got), got[0])
	}

	send := func(mark, target string) result {
		return n.do(alice, n.run("bot", bin("client"), "act", "send", mark, target)...)
	}
	arrived := func(mark string) int {
		return n.sink.count(at(v4(hostNamed)), mark) + n.sink.count(at(v6(hostNamed)), mark)
	}
	for mark, target := range map[string]string{"d-tcp4": "tcp4/direct.e2e.test:7000", "d-tcp6": "tcp6/direct.e2e.test:7000",
		"d-udp4": "udp4/relay.e2e.test:7000", "d-udp6": "udp6/relay.e2e.test:7000", "d-sendto4": "sendto4/relay.e2e.test:7000"} {
		if r := send(mark, target); r.code != 0 || arrived(mark) != 1 {
			t.Errorf("%s: %s; %d arrived", target, r, arrived(mark))
		}
	}
	// Nothing is open for a run that has not asked, nor at another port or protocol.
	for mark, target := range map[string]string{
		"x-unasked": "tcp4/" + at(v4(hostNamed)), "x-port": "tcp4/direct.e2e.test:7001", "x-udp": "udp4/direct.e2e.test:7000",
		"x-tcp": "tcp4/relay.e2e.test:7000", "x-other": "tcp4/" + at(v4(hostUnlisted)),
	} {
		if r := send(mark, target); !strings.Contains(r.stdout, "EPERM") || arrived(mark) != 0 || n.sink.count(mark) != 0 {
			t.Errorf("%s: %s", target, r)
		}
	}
	if r := n.do(alice, bin("client"), "act", "send", "control", "tcp4/"+at(v4(hostNamed))); r.code != 0 || arrived("control") != 1 {
		t.Errorf("control, unconfined: %s", r)
	}

	var found bool
	for _, e := range n.events("--kind", "dns") {
		found = found || e.Effect == decision.EffectAllow && e.DNS != nil && e.DNS.Name == "direct.e2e.test" &&
			slices.Contains(e.DNS.Answers, v4(hostNamed))
	}
	if !found {
		t.Error("no event tells to which addresses direct.e2e.test has led")
	}
	contains(t, "status", n.must(root, n.varvel("status")...), "shared-addresses", "direct.e2e.test")
	listed := []string{"direct.e2e.test", "relay.e2e.test"}
	for _, name := range n.questions(t) {
		if !slices.Contains(listed, name) {
			t.Errorf("the world's name server was asked for %s", name)
		}
	}
}

// TestDirectIsWithdrawn takes a direct name from a live run and gives it back.
func TestDirectIsWithdrawn(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleDirect, ruleRelay)}})
	all := n.keep("bot", "tcp4/direct.e2e.test:7000", "udp4/relay.e2e.test:7000")
	for _, k := range all {
		n.becomes(k, "ok")
	}
	n.configure("agents.d/bot.yaml", reloadAgent(ruleRelay))
	n.must(root, n.varvel("reload")...)
	n.eventually("the connection is cut", func() bool { return n.refusedNow(all[0]) })
	n.becomes(all[1], "ok")
	n.configure("agents.d/bot.yaml", reloadAgent(ruleDirect))
	n.must(root, n.varvel("reload")...)
	n.becomes(all[0], "ok")
	n.eventually("the datagrams are refused", func() bool { return n.refusedNow(all[1]) })
}

// refusedNow reports whether the newest outcome is a failure.
func (n *node) refusedNow(k kept) bool {
	n.t.Helper()
	b, err := os.ReadFile(k.file)
	_, is, found := strings.Cut(string(b), " ")
	return err == nil && found && is != "ok"
}

// TestTunnel tries to carry data in names below an allowed wildcard, by asking and
// by connecting.
func TestTunnel(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleWild)}})
	name := tunnelLabel + ".wild.e2e.test"
	r := n.do(alice, n.run("bot", bin("client"), "act", "send", "data", "tcp/"+name+":7000")...)
	if r.code == 0 || n.sink.count("data") != 0 || n.asked(t, tunnelLabel) != 0 {
		t.Errorf("%s; %d questions have left", r, n.asked(t, tunnelLabel))
	}
	var rules []string
	for _, e := range n.events("--kind", "dns") {
		for _, why := range e.Reasons {
			rules = append(rules, why.Rule)
		}
	}
	if !slices.Contains(rules, "name.entropy") {
		t.Errorf("reasons %v", rules)
	}
	// Controls: the same unconfined, and another name of the wildcard.
	if r := n.do(alice, bin("client"), "act", "send", "free", "tcp/"+name+":7000"); r.code != 0 || n.asked(t, tunnelLabel) == 0 {
		t.Errorf("control, unconfined: %s", r)
	}
	if r := n.do(alice, n.run("bot", bin("client"), "act", "send", "normal", "tcp/a.wild.e2e.test:7000")...); r.code != 0 {
		t.Errorf("control, another name: %s", r)
	}
	// A run that goes through many names is stopped, and told why.
	before := n.asked(t, "wild.e2e.test")
	var targets []string
	for i := range 400 {
		targets = append(targets, fmt.Sprintf("tcp4/n%d.wild.e2e.test:7000", i))
	}
	n.do(alice, n.run("bot", append([]string{bin("client"), "act", "send", "many"}, targets...)...)...)
	left := map[string]bool{}
	for _, q := range n.questions(t)[before:] {
		left[q] = true
	}
	if len(left) < 50 || len(left) > 300 {
		t.Errorf("of %d names %d have left", len(targets), len(left))
	}
	var budget bool
	for _, e := range n.denials() {
		for _, why := range e.Reasons {
			budget = budget || why.Rule == "name.rate"
		}
	}
	if !budget {
		t.Error("no event tells that the budget is used up")
	}
}

// TestWildcardBudgetIsRaised: what the default refuses is let through by the agent's
// own bounds, which a reload gives to a live run and takes away. A name that the run
// has had stays.
func TestWildcardBudgetIsRaised(t *testing.T) {
	agent := "agent: bot\negress: [{ name: \"*.wild.e2e.test\", ports: [7000], opaque: true }]\nlaunch: { users: [nobody] }\n"
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": agent}})
	bot := n.shell("bot")
	id := n.onlyRun()
	refused := func() (count int) {
		for _, e := range n.events("--run", id, "--effect", "deny") {
			if hasRule(e, "name.entropy") {
				count++
			}
		}
		return count
	}
	try := func(label string, works bool) {
		t.Helper()
		if r := bot.do(bin("client"), "act", "send", "wild", "tcp4/"+label+".wild.e2e.test:7000"); works != (r.code == 0) {
			t.Errorf("works %t, want %t: %s", !works, works, r)
		}
	}
	try(tunnelLabel, false)
	n.eventually("the refusal is recorded", func() bool { return refused() > 0 })
	if n.asked(t, tunnelLabel) != 0 {
		t.Error("the name has left")
	}
	before := refused()
	n.configure("agents.d/bot.yaml", agent+"wildcards: { label: 63, entropy: 8 }\n")
	n.must(root, n.varvel("reload")...)
	try(tunnelLabel, true)
	if n.asked(t, tunnelLabel) == 0 || refused() != before {
		t.Errorf("asked %d times, %d refusals, %d before", n.asked(t, tunnelLabel), refused(), before)
	}
	n.configure("agents.d/bot.yaml", agent)
	n.must(root, n.varvel("reload")...)
	try("x"+tunnelLabel[1:], false)
	n.eventually("the refusal is recorded again", func() bool { return refused() > before })
}

// TestNameServersDown: names fail, nothing opens, and the node says what is wrong.
func TestNameServersDown(t *testing.T) {
	n := newRealm(t).newNode(t, options{
		node:  "dns: { upstreams: [\"192.0.2.10\"], timeout: 1s }\n", // nobody answers there
		files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleDirect, ruleRelay, ruleName)},
	})
	for _, target := range []string{"tcp4/direct.e2e.test:7000", "udp4/relay.e2e.test:7000", "tcp/exact.e2e.test:7000"} {
		r := n.do(alice, n.run("bot", bin("client"), "act", "send", "down", target)...)
		if r.code == 0 || n.sink.count("down") != 0 {
			t.Errorf("%s: %s", target, r)
		}
	}
	n.eventually("the node's health tells", func() bool {
		return strings.Contains(n.do(root, n.varvel("status")...).stdout, "dns-upstream")
	})
	if r := n.do(alice, bin("client"), "act", "send", "control", "tcp4/direct.e2e.test:7000"); r.code != 0 {
		t.Errorf("control, unconfined: %s", r)
	}
}
