package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// why is what the tool explains.
type why struct {
	Verdict string `json:"verdict"`
	Fix     *struct {
		Key  string `json:"key"`
		YAML string `json:"yaml"`
		File string `json:"file"`
		Line int    `json:"line"`
	} `json:"fix"`
}

// TestWhyRoundTrip writes the very lines that `varvel why` prints into the
// configuration, and what was refused works.
func TestWhyRoundTrip(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleListed)}})
	s := n.shell("bot")
	run := n.onlyRun()
	tests := []struct{ target, dest string }{
		{"tcp4/" + at(v4(hostUnlisted)), at(v4(hostUnlisted))},
		{"tcp6/" + at(v6(hostUnlisted)), at(v6(hostUnlisted))},
		{"tcp/later.e2e.test:7000", "later.e2e.test:7000"},
	}
	for i, tt := range tests {
		send := []string{bin("client"), "act", "send", "mark" + tt.dest, tt.target}
		if r := s.do(send...); r.code != 1 {
			t.Errorf("%s before: %s", tt.dest, r)
		}
		w := n.explain(run, tt.dest)
		if w.Verdict != "denied" || w.Fix == nil {
			t.Errorf("%s: %+v", tt.dest, w)
			continue
		}
		text := n.must(root, n.varvel("why", run, tt.dest)...)
		contains(t, "why", text, strings.TrimSpace(w.Fix.YAML), "egress")
		n.insert(w)
		n.must(root, n.varvel("check", filepath.Join(n.dir, "config"))...)
		n.must(root, n.varvel("reload")...)
		r := s.do(send...)
		if i == 2 && r.code != 0 {
			// The server is not one of TLS, which a name rule wants.
			contains(t, "later", n.must(root, n.varvel("audit", "--effect", "deny", "-n", "1")...), "not-tls")
			continue
		}
		if r.code != 0 {
			t.Errorf("%s after: %s\n%s", tt.dest, r, text)
		}
		if w := n.explain(run, tt.dest); w.Verdict == "denied" || w.Fix != nil {
			t.Errorf("%s after: %+v", tt.dest, w)
		}
	}
	if n.sink.unlisted() == 0 {
		t.Error("nothing has arrived")
	}
}

func (n *node) explain(run, dest string) (w why) {
	n.t.Helper()
	out := n.must(root, n.varvel("why", run, dest, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &w); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return w
}

// insert puts the lines where they belong: below the key.
func (n *node) insert(w why) {
	n.t.Helper()
	file := filepath.Join(n.dir, "config", "agents.d", "bot.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	n.configure("agents.d/bot.yaml", strings.Replace(string(b), "egress:\n", "egress:\n"+w.Fix.YAML+"\n", 1))
}

// TestObserve: what enforce would refuse happens, and the event says so.
func TestObserve(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{
		"agents.d/bot.yaml": "agent: bot\nmode: observe\nlaunch: { users: [nobody] }\n",
	}})
	s := n.shell("bot")
	run := n.onlyRun()
	all := append(targets(hostUnlisted), "tcp/later.e2e.test:7000")
	for _, target := range all {
		if r := s.do(bin("client"), "act", "send", "observed", target); r.code != 0 {
			t.Errorf("%s: %s", target, r)
		}
	}
	if n.sink.count("tcp", "observed") == 0 || n.sink.count("udp", "observed") == 0 {
		t.Error("nothing has arrived")
	}
	would := map[string]bool{}
	n.eventually("the events are there", func() bool {
		for _, e := range n.events("--run", run) {
			switch {
			case e.Would != "deny":
			case e.Effect != "allow" || e.Mode != "observe":
				t.Fatalf("an observed event: %+v", e)
			case e.Target != nil && e.Target.Address.IsValid():
				would[e.Target.Protocol+" "+e.Target.Address.Unmap().String()] = true
			case e.DNS != nil:
				would[strings.TrimSuffix(e.DNS.Name, ".")] = true
			}
		}
		return len(would) >= 6
	})
	for _, want := range []string{
		"tcp " + v4(hostUnlisted).String(), "tcp " + v6(hostUnlisted).String(),
		"udp " + v4(hostUnlisted).String(), "udp " + v6(hostUnlisted).String(), "later.e2e.test",
	} {
		if !would[want] {
			t.Errorf("no event says that %s would be refused; there are %v", want, would)
		}
	}
}
