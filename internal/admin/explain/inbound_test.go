package explain_test

import (
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/explain"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
)

const listener = "agent: bot\nlisten:\n  - { port: 8080-8090, from: [192.0.2.0/24, \"2001:db8::/32\"] }\n  - { port: 53, protocol: udp, from: [127.0.0.0/8] }\n"

func (n *node) whyFrom(t *testing.T, from, port, protocol string) api.Why {
	t.Helper()
	in, err := explain.ParsePeer(from, port, protocol)
	if err != nil {
		t.Fatal(err)
	}
	return explain.New(n, n).ExplainInbound(n.run, in)
}

func TestWhoComesIn(t *testing.T) {
	n := load(t, map[string]string{"varvel.yaml": "trust_domain: example.org\n", "agents.d/bot.yaml": listener}, "bot")
	for _, tt := range []struct {
		from, port, protocol string
		verdict              api.Verdict
		line                 int // of the rule, or where the fix goes
	}{
		{"192.0.2.7", "8085", "tcp", api.Allowed, 3},
		{"::ffff:192.0.2.7", "8085", "tcp", api.Allowed, 3},
		{"[2001:db8::7]", "8090", "tcp", api.Allowed, 3},
		{"192.0.2.7", "8091", "tcp", api.Denied, 2},
		{"192.0.3.7", "8085", "tcp", api.Denied, 2},
		{"192.0.2.7", "8085", "udp", api.Denied, 2},
		{"127.0.0.1", "53", "udp", api.Allowed, 4},
		{"127.0.0.1", "53", "tcp", api.Denied, 2},
	} {
		w := n.whyFrom(t, tt.from, tt.port, tt.protocol)
		switch {
		case w.Verdict != tt.verdict:
			t.Errorf("%+v: %+v", tt, w)
		case w.Verdict == api.Allowed && (w.By == nil || w.By.Line != tt.line):
			t.Errorf("%+v: by %+v", tt, w.By)
		case w.Verdict == api.Denied && (w.Fix == nil || w.Fix.Line != tt.line || w.Fix.Key != "listen"):
			t.Errorf("%+v: fix %+v", tt, w.Fix)
		}
	}
	n.run.Revoked = true
	if w := n.whyFrom(t, "192.0.2.7", "8085", "tcp"); w.Verdict != api.Denied || w.Fix != nil {
		t.Errorf("revoked: %+v", w)
	}
}

// TestFixOfListenIsValid puts what is suggested into the file.
func TestFixOfListenIsValid(t *testing.T) {
	for _, text := range []string{"agent: bot\n", listener} {
		n := load(t, map[string]string{"varvel.yaml": "trust_domain: example.org\n", "agents.d/bot.yaml": text}, "bot")
		w := n.whyFrom(t, "2001:db9::1", "9000", "udp")
		if w.Fix == nil {
			t.Fatalf("%q: %+v", text, w)
		}
		lines := strings.SplitAfter(text, "\n")
		fixed := strings.Join(lines[:w.Fix.Line], "") + w.Fix.YAML + "\n" + strings.Join(lines[w.Fix.Line:], "")
		n = load(t, map[string]string{"varvel.yaml": "trust_domain: example.org\n", "agents.d/bot.yaml": fixed}, "bot")
		if w := n.whyFrom(t, "2001:db9::1", "9000", "udp"); w.Verdict != api.Allowed {
			t.Errorf("%q: %+v", fixed, w)
		}
	}
}

func TestListenThatPolicyRefuses(t *testing.T) {
	n := load(t, map[string]string{"varvel.yaml": "trust_domain: example.org\n", "agents.d/bot.yaml": listener}, "bot")
	n.plan = &egress.Plan{ListenRefused: []egress.ListenRefusal{{
		Rule: &n.run.Agent.Listen[0], DecisionID: "dec_8", Reasons: []decision.Reason{{Rule: "custom.closed", Text: "Not here."}},
	}}}
	w := n.whyFrom(t, "192.0.2.7", "8080", "tcp")
	if w.Verdict != api.Denied || w.Fix != nil || !strings.Contains(strings.Join(w.Notes, "\n"), "custom.closed") {
		t.Errorf("%+v", w)
	}
}

func TestPeersThatMakeNoSense(t *testing.T) {
	for _, tt := range [][3]string{
		{"example.org", "80", config.ProtocolTCP}, {"192.0.2.1", "0", config.ProtocolTCP}, {"192.0.2.1", "80", "any"},
		{"fe80::1%eth0", "80", config.ProtocolTCP}, {"192.0.2.0/24", "80", config.ProtocolTCP}, {"192.0.2.1", "", config.ProtocolTCP},
	} {
		if in, err := explain.ParsePeer(tt[0], tt[1], tt[2]); err == nil {
			t.Errorf("%v is taken for %+v", tt, in)
		}
	}
}
