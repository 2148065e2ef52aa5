package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/audit"
)

const (
	ruleListed6 = `{ cidr: "2001:db8::a/128", ports: [7000] }`
	ruleOther   = `{ cidr: 192.0.2.20/32, ports: [7000] }`
)

// resets are the connections that ended at a receiver by a reset.
func (n *node) resets(address string) int { return n.sink.count("tcp " + address + " end ECONNRESET") }

// TestReloadCutsWhatOnlyReads: a connection on which a run sends nothing is ended
// at once when its rule goes, at both ends, over both families and by name.
func TestReloadCutsWhatOnlyReads(t *testing.T) {
	files := map[string]string{
		"agents.d/bot.yaml":   reloadAgent(ruleListed, ruleListed6, ruleOther, ruleName),
		"agents.d/other.yaml": strings.Replace(reloadAgent(ruleListed, ruleListed6), "bot", "other", 1),
	}
	n := newRealm(t).newNode(t, options{files: files})
	h := n.hold("bot", "tcp4/"+at(v4(hostListed)), "tcp6/"+at(v6(hostListed)), "tcp4/"+at(v4(hostNamed)), "tcp4/exact.e2e.test:7000")
	control := n.hold("other", "tcp4/"+at(v4(hostListed)), "tcp6/"+at(v6(hostListed)))
	n.configure("agents.d/bot.yaml", reloadAgent(ruleOther))
	n.must(root, n.varvel("reload")...)
	h.becomes(0, "ECONNABORTED")
	h.becomes(1, "ECONNABORTED")
	h.becomes(3, "EOF", "ECONNRESET")
	for _, address := range []string{at(v4(hostListed)), at(v6(hostListed))} {
		n.eventually("a reset at "+address, func() bool { return n.resets(address) == 1 })
	}
	h.stays(2)
	control.stays(0)
	control.stays(1)
	events := n.events("--kind", "connect", "--agent", "bot")
	cut := events[len(events)-1]
	for _, e := range events {
		if e.Activity == "cut" {
			cut = e
		}
	}
	if cut.Activity != "cut" || cut.Count != 3 || cut.Run == "" || cut.Actor == "" {
		t.Errorf("the event of the cut: %+v", cut)
	}
}

// TestRevoke takes everything from one run, and nothing from another.
func TestRevoke(t *testing.T) {
	files := map[string]string{
		"agents.d/bot.yaml":   reloadAgent(ruleListed, ruleListed6, ruleName),
		"agents.d/other.yaml": strings.Replace(reloadAgent(ruleListed), "bot", "other", 1),
	}
	n := newRealm(t).newNode(t, options{files: files})
	h := n.hold("bot", "tcp4/"+at(v4(hostListed)), "tcp6/"+at(v6(hostListed)), "tcp4/exact.e2e.test:7000")
	id := n.onlyRun()
	control := n.hold("other", "tcp4/"+at(v4(hostListed)))
	r := n.do(stranger, n.varvel("revoke", id)...)
	if r.code == 0 {
		t.Errorf("a stranger may revoke: %s", r)
	}
	h.stays(0)
	out := n.must(root, n.varvel("revoke", id, "--reason", "looks hijacked")...)
	contains(t, "revoke", out, id, "connections cut")
	h.becomes(0, "ECONNABORTED")
	h.becomes(1, "ECONNABORTED")
	h.becomes(2, "EOF", "ECONNRESET", "ECONNABORTED")
	h.again(0, "EPERM")
	n.eventually("a reset at the receiver", func() bool { return n.resets(at(v6(hostListed))) == 1 })
	control.stays(0)
	n.must(root, n.varvel("reload")...)
	h.again(0, "EPERM")
	n.showsRevoked(id)
	n.saysWhoRevoked(id)
	n.kill()
	n.start()
	n.showsRevoked(id)
	h.again(0, "EPERM")
	control.stays(0)
	n.must(root, n.varvel("revoke", id, "--kill")...)
	n.eventually("the run is over", func() bool { return len(n.runIDs()) == 1 })
}

// showsRevoked: the list of runs and the explanation say it.
func (n *node) showsRevoked(id string) {
	n.t.Helper()
	var run struct{ Revoked bool }
	if err := json.Unmarshal([]byte(n.must(root, n.varvel("runs", id, "-o", "json")...)), &run); err != nil || !run.Revoked {
		n.t.Errorf("the list of runs does not say that it is revoked: %v", err)
	}
	contains(n.t, "why", n.must(root, n.varvel("why", id, at(v4(hostListed)))...), "revoked")
}

func (n *node) saysWhoRevoked(id string) {
	n.t.Helper()
	events := n.events("--run", id, "--kind", string(audit.KindRunRevoke))
	if len(events) != 1 {
		n.t.Fatalf("%d events of the revocation", len(events))
	}
	e := events[0]
	if e.Agent != "bot" || e.Approval == nil || e.Approval.By == nil || e.Approval.By.UID != 0 || e.Approval.Reason != "looks hijacked" {
		n.t.Errorf("the event of the revocation: %+v %+v", e, e.Approval)
	}
}
