package explain_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/admin/admintest"
	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/explain"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// node is a configuration with one run of one agent.
type node struct {
	cfg  *config.Config
	run  *workload.Run
	plan *egress.Plan
}

func (n *node) Config() *config.Config           { return n.cfg }
func (n *node) Plan(uint64) (*egress.Plan, bool) { return n.plan, n.plan != nil }

func load(t *testing.T, files map[string]string, agent string) *node {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := cfg.Agents[agent]
	var tools []*tool.Tool
	for _, name := range a.Tools {
		tools = append(tools, cfg.Tools[name])
	}
	run := &workload.Run{Run: decision.Run{ID: "run_A", Agent: agent, Mode: a.Mode}, CgroupID: 1, Agent: a, Tools: tools}
	return &node{cfg: cfg, run: run}
}

func (n *node) why(t *testing.T, dest string) api.Why {
	t.Helper()
	to, err := explain.ParseDestination(dest)
	if err != nil {
		t.Fatalf("%s: %v", dest, err)
	}
	return explain.New(n, n).Explain(n.run, to)
}

func TestExplain(t *testing.T) {
	n := load(t, admintest.Files(), "billing-bot")
	tests := []struct {
		dest     string
		verdict  api.Verdict
		line     int    // of the rule or tool that answers; 0 is none
		sentence string // part of it
		fix      string // part of the YAML; "" is none
	}{
		{"api.stripe.com:443", api.Judged, 1, "Tool stripe", ""},
		{"https://API.stripe.com./v1/refunds", api.Judged, 1, "Tool stripe", ""},
		{"api.stripe.com", api.Judged, 1, "Tool stripe", ""},
		{"http://api.stripe.com/v1", api.Judged, 1, "Tool stripe", ""},
		{"api.stripe.com:8080", api.Denied, 0, "api.stripe.com:8080. The name resolves, and", "name: api.stripe.com, ports: [8080]"},
		{"a.pkg.example.org:443", api.Allowed, 6, "over TCP", ""},
		{"pkg.example.org:443", api.Denied, 0, "NXDOMAIN", "name: pkg.example.org"},
		{"a.b.pkg.example.org:443", api.Denied, 0, "NXDOMAIN", "name: a.b.pkg.example.org"},
		{"docs.example.org:443", api.Denied, 0, "NXDOMAIN", "tools: [stripe, docs]"},
		{"evil.example.net", api.Denied, 0, "NXDOMAIN", "name: evil.example.net, ports: [443]"},
		{"192.0.2.9:5432", api.Allowed, 7, "over TCP", ""},
		{"192.0.2.9", api.Allowed, 7, "over TCP", ""},
		{"[::ffff:192.0.2.9]:5432", api.Allowed, 7, "over TCP", ""},
		{"192.0.2.9:22", api.Denied, 0, "EPERM", `cidr: "192.0.2.9/32", ports: [22]`},
		{"198.51.100.1:443", api.Denied, 0, "EPERM", `cidr: "198.51.100.1/32"`},
		{"[2001:db8::1]:8050", api.Allowed, 8, "TCP and UDP", ""},
		{"[2001:db9::1]:443", api.Denied, 0, "EPERM", `cidr: "2001:db9::1/128"`},
		{"169.254.169.254:80", api.Denied, 0, "no rule opens", ""},
		{"169.254.170.2:80", api.Allowed, 0, "endpoint", ""},
		{"127.0.0.1:5432", api.Denied, 0, "Loopback", ""},
		{"localhost:5432", api.Denied, 0, "Loopback", ""},
		{"198.18.0.1:443", api.Denied, 0, "synthetic", ""},
		{"8.8.8.8:53", api.Allowed, 0, "DNS proxy", ""},
	}
	for _, tt := range tests {
		t.Run(tt.dest, func(t *testing.T) {
			w := n.why(t, tt.dest)
			line := 0
			if w.By != nil {
				line = w.By.Line
			}
			if w.Verdict != tt.verdict || line != tt.line || !strings.Contains(w.Sentence, tt.sentence) {
				t.Errorf("got %s at line %d: %s", w.Verdict, line, w.Sentence)
			}
			if (w.Fix == nil) != (tt.fix == "") || w.Fix != nil && !strings.Contains(w.Fix.YAML, tt.fix) {
				t.Errorf("fix: %+v", w.Fix)
			}
		})
	}
}

// TestFixes puts each fix where it says, and asks again.
func TestFixes(t *testing.T) {
	files := admintest.Files()
	for agent, dests := range map[string][]string{
		"billing-bot": {"evil.example.net:8443", "192.0.2.9:22", "[2001:db9::1]:443", "203.0.113.7", "docs.example.org:443"},
		"plain":       {"evil.example.net", "[2001:db9::1]:443", "docs.example.org:443"},
	} {
		for _, dest := range dests {
			t.Run(agent+" "+dest, func(t *testing.T) {
				w := load(t, files, agent).why(t, dest)
				if w.Verdict != api.Denied || w.Fix == nil {
					t.Fatalf("not denied, or no fix: %+v", w)
				}
				fixed := maps.Clone(files)
				name := "agents.d/" + agent + ".yaml"
				fixed[name] = insert(fixed[name], *w.Fix)
				if after := load(t, fixed, agent).why(t, dest); after.Verdict != api.Allowed {
					t.Errorf("after the fix: %s\n%s", after.Sentence, fixed[name])
				}
			})
		}
	}
}

// insert adds text below the line of the fix; a key that is there is replaced.
func insert(text string, f api.Fix) string {
	lines := strings.Split(text, "\n")
	at := f.Line
	if f.Key == "tools" && strings.HasPrefix(lines[f.Line-1], "tools:") {
		lines[f.Line-1] = f.YAML
		return strings.Join(lines, "\n")
	}
	return strings.Join(append(lines[:at:at], append([]string{f.YAML}, lines[at:]...)...), "\n")
}

func TestRefusedByPolicy(t *testing.T) {
	n := load(t, admintest.Files(), "billing-bot")
	n.plan = &egress.Plan{Refused: []egress.Refusal{{
		Rule: &n.run.Agent.Egress[1], DecisionID: "dec_7", Reasons: []decision.Reason{{Rule: "custom.no-ledger", Text: "Not today."}},
	}}}
	w := n.why(t, "192.0.2.9:5432")
	if w.Verdict != api.Denied || w.By.Line != 7 || !cmp.Equal(w.Notes, []string{"policy custom.no-ledger: Not today.", "decision dec_7"}) {
		t.Errorf("%+v", w)
	}
	if w := n.why(t, "[2001:db8::1]:443"); w.Verdict != api.Allowed {
		t.Errorf("a rule that is not refused: %+v", w)
	}
}

func TestObserve(t *testing.T) {
	w := load(t, admintest.Files(), "plain").why(t, "evil.example.net:443")
	if w.Verdict != api.Denied || !strings.Contains(fmt.Sprint(w.Notes), "observe mode") {
		t.Errorf("%+v", w)
	}
}

func TestParseDestination(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	good := map[string]api.Destination{
		"x.example.org":              {Name: "x.example.org"},
		"X.example.org.:8443":        {Name: "x.example.org", Port: 8443},
		"https://x.example.org/a?b":  {Name: "x.example.org", Port: 443},
		"http://x.example.org:8080/": {Name: "x.example.org", Port: 8080},
		"postgres://u:p@db.example/": {Name: "db.example", Port: 5432},
		"2001:db8::1":                {Address: v6},
		"[2001:db8::1]":              {Address: v6},
		"[2001:db8::1]:443":          {Address: v6, Port: 443},
		"https://[2001:db8::1]/":     {Address: v6, Port: 443},
		"::ffff:192.0.2.1":           {Address: netip.MustParseAddr("192.0.2.1")},
	}
	for s, want := range good {
		if got, err := explain.ParseDestination(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x.example.org:", "x.example.org:0", "x.example.org:65536", "x.example.org:http", "*.example.org", "a b",
		"gopher://x.example.org", "https://", "fe80::1%eth0", "x\x1b[31m.example", strings.Repeat("x", 3000), "x..example.org", "x/y"} {
		if got, err := explain.ParseDestination(s); err == nil {
			t.Errorf("%.60q is %+v", s, got)
		}
	}
}

func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{"x.example.org:443", "https://x/y", "[::1]:2", "1.2.3.4", "localhost", "[", "a://b:c", "::%x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := explain.ParseDestination(s)
		switch {
		case err != nil:
		case (d.Name == "") == !d.Address.IsValid():
			t.Errorf("%q is both or neither: %+v", s, d)
		case d.Name != strings.ToLower(d.Name) || strings.ContainsAny(d.Name, " \x1b\n/:"):
			t.Errorf("%q is the name %q", s, d.Name)
		}
	})
}

func TestExplainDirect(t *testing.T) {
	n := load(t, map[string]string{
		"varvel.yaml": "trust_domain: example.org\n",
		"agents.d/a.yaml": `agent: a
egress:
  - { name: "**.example.org", ports: [443] }
  - { name: turn.example.org, ports: [443, 3478], protocol: any, direct: true }
  - { name: no.example.net, ports: [443], direct: true }
`,
	}, "a")
	plan, err := egress.NewPlan(t.Context(), refuseName("no.example.net"), n.run)
	if err != nil {
		t.Fatal(err)
	}
	n.plan = plan
	for dest, want := range map[string]string{
		"turn.example.org:443": "over TCP and UDP, directly", "www.example.org:443": "allows this name over TCP.",
		"no.example.net:443": "policy does not let it be used",
	} {
		w := n.why(t, dest)
		if !strings.Contains(w.Sentence, want) || (w.Verdict == api.Allowed) != (dest != "no.example.net:443") {
			t.Errorf("%s: %+v", dest, w)
		}
	}
}

// refuseName is a decider that refuses one name.
type refuseName string

func (r refuseName) Decide(_ context.Context, q decision.Request) (decision.Decision, error) {
	if q.Target.Name == string(r) {
		return decision.Decision{Effect: decision.EffectDeny}, nil
	}
	return decision.Decision{Effect: decision.EffectAllow}, nil
}
