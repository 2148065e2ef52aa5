package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// reloadAgent is an agent with rules that come and go.
func reloadAgent(rules ...string) string {
	text := "agent: bot\nlaunch: { users: [nobody] }\n"
	if len(rules) > 0 {
		text += "egress:\n"
	}
	for _, r := range rules {
		text += "  - " + r + "\n"
	}
	return text
}

const (
	ruleListed   = `{ cidr: 192.0.2.10/32, ports: [7000] }`
	ruleUnlisted = `{ cidr: 192.0.2.66/32, ports: [7000], protocol: any }`
	ruleName     = `{ name: exact.e2e.test, ports: [7000], opaque: true }`
)

// kept is a connection that a run keeps up, and where it writes how it goes.
type kept struct{ target, file string }

// keep starts a run that keeps up a connection to each target.
func (n *node) keep(agent string, targets ...string) []kept {
	n.t.Helper()
	var list []kept
	act := []string{bin("client"), "act", "keep"}
	for i, target := range targets {
		file := filepath.Join(n.dir, "shared", fmt.Sprintf("kept-%s-%d", agent, i))
		list = append(list, kept{target, file})
		act = append(act, file, target)
	}
	cli := n.begin(alice, n.run(agent, act...)...)
	n.t.Cleanup(func() {
		_ = cli.cmd.Process.Signal(syscall.SIGTERM)
		n.await(cli)
	})
	return list
}

// becomes waits until the newest outcomes are that, several times in a row.
func (n *node) becomes(k kept, outcome string) {
	n.t.Helper()
	last, streak, text := "", 0, ""
	n.eventually(k.target+" becomes "+outcome, func() bool {
		b, _ := os.ReadFile(k.file)
		text = string(b)
		number, is, _ := strings.Cut(text, " ")
		switch {
		case is != outcome:
			streak = 0
		case number != last:
			streak++
		}
		last = number
		return streak >= 3
	})
}

// TestReload changes the rules under a live run and back.
func TestReload(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleListed, ruleName)}})
	all := n.keep("bot", "tcp4/"+at(v4(hostListed)), "tcp4/"+at(v4(hostUnlisted)), "udp4/"+at(v4(hostUnlisted)), "tcp4/exact.e2e.test:7000")
	listed, unlisted, udp, named := all[0], all[1], all[2], all[3]
	steady := func() {
		t.Helper()
		n.becomes(listed, "ok")
		n.becomes(unlisted, "EPERM")
		n.becomes(udp, "EPERM")
		n.becomes(named, "ok")
	}
	steady()
	if got := n.sink.unlisted(); got != 0 {
		t.Fatalf("%d unlisted attempts arrived", got)
	}
	// The other way round: what was open is cut while it is in use.
	n.configure("agents.d/bot.yaml", reloadAgent(ruleUnlisted))
	contains(t, "reload", n.must(root, n.varvel("reload")...), "1 agents", "1 live runs")
	n.becomes(unlisted, "ok")
	n.becomes(udp, "ok")
	n.becomes(listed, "EPERM")
	arrived := n.sink.count(at(v4(hostListed)), "keep-")
	n.refusedName(named)
	if now := n.sink.count(at(v4(hostListed)), "keep-"); now != arrived {
		t.Errorf("%d more messages arrived after the rule was gone", now-arrived)
	}
	// And back, by the signal.
	n.configure("agents.d/bot.yaml", reloadAgent(ruleListed, ruleName))
	_ = n.daemon.Process.Signal(syscall.SIGHUP)
	steady()
	// Without its agent, a live run reaches nothing.
	if err := os.Remove(filepath.Join(n.dir, "config/agents.d/bot.yaml")); err != nil {
		t.Fatal(err)
	}
	n.must(root, n.varvel("reload")...)
	n.becomes(listed, "EPERM")
	n.refusedName(named)
	r := n.do(alice, n.run("bot", "true")...)
	if r.code != 125 {
		t.Errorf("an agent that is gone was started: %s", r)
	}
}

// refusedName waits until a kept connection to a name is refused in some way.
func (n *node) refusedName(k kept) {
	n.t.Helper()
	arrivals := func() int { return n.sink.count(at(v4(hostNamed)), "keep-") + n.sink.count(at(v6(hostNamed)), "keep-") }
	n.eventually(k.target+" is refused", func() bool {
		b, _ := os.ReadFile(k.file)
		return !strings.HasSuffix(string(b), " ok")
	})
	before := arrivals()
	n.passes(k)
	if now := arrivals(); now != before {
		n.t.Errorf("%d more messages arrived at the name after its rule was gone", now-before)
	}
}

// TestReloadOfTool takes a tool away under a run that keeps an HTTP connection to
// it open, and changes what it may do there.
func TestReloadOfTool(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: toolFiles()})
	k := n.keep("bot", "get/tool.e2e.test:8080/look/kept")[0]
	n.becomes(k, "ok")
	for _, gone := range []struct{ file, text, back string }{
		{"tools.d/svc.yaml", strings.Replace(toolSvc, "/look/**", "/other/**", 1), toolSvc},
		{"agents.d/bot.yaml", strings.Replace(toolAgent, "[svc]", "[]", 1), toolAgent},
	} {
		n.configure(gone.file, gone.text)
		n.must(root, n.varvel("reload")...)
		n.eventually("the request is refused", func() bool {
			b, _ := os.ReadFile(k.file)
			return !strings.HasSuffix(string(b), " ok")
		})
		arrived := n.tool.count("GET /look/kept")
		n.passes(k)
		if now := n.tool.count("GET /look/kept"); now != arrived {
			t.Errorf("%s: %d more requests have arrived", gone.file, now-arrived)
		}
		n.configure(gone.file, gone.back)
		n.must(root, n.varvel("reload")...)
		n.becomes(k, "ok")
	}
}

// passes waits until more attempts were made.
func (n *node) passes(k kept) {
	n.t.Helper()
	for range 3 {
		first, _ := os.ReadFile(k.file)
		n.eventually("more attempts", func() bool {
			b, _ := os.ReadFile(k.file)
			return string(b) != string(first)
		})
	}
}

// TestReloadOfBadConfiguration: it changes nothing, and the health says so.
func TestReloadOfBadConfiguration(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleListed)}})
	k := n.keep("bot", "tcp4/"+at(v4(hostListed)))[0]
	n.becomes(k, "ok")
	n.healthy(true, "ok")
	n.configure("agents.d/bot.yaml", strings.Replace(reloadAgent(ruleUnlisted), "egress:", "egres:", 1)+"tools: [nosuch]\n")
	r := n.do(root, n.varvel("reload")...)
	if r.code != 1 {
		t.Errorf("a reload of a bad configuration: %s", r)
	}
	contains(t, "reload", r.stdout+r.stderr, "bot.yaml:3", "egres", "bot.yaml:5", "nosuch")
	n.healthy(false, "config-invalid")
	n.becomes(k, "ok")
	n.must(alice, n.run("bot", bin("client"), "act", "send", "still", "tcp4/"+at(v4(hostListed)))...)
	n.configure("agents.d/bot.yaml", reloadAgent(ruleListed))
	n.must(root, n.varvel("reload")...)
	n.healthy(true, "ok")
	// What needs a restart is said, not half done.
	n.configure("varvel.yaml", n.commons+"metrics: { listen: \"127.0.0.1:9999\" }\n")
	r = n.do(root, n.varvel("reload")...)
	if r.code == 0 {
		t.Error("a setting that needs a restart was accepted")
	}
	contains(t, "reload", r.stderr, "metrics", "restart varveld")
	n.configure("varvel.yaml", n.commons)
	// Without a command: the daemon sees the file by itself.
	n.eventually("green by itself", func() bool { return n.do(root, n.varvel("status")...).code == 0 })
	n.healthy(true, "ok")
}

// healthy checks /healthz and varvel status.
func (n *node) healthy(want bool, finding string) {
	n.t.Helper()
	r := n.do(root, "curl", "-sS", "-m", "5", "-w", "%{http_code}", "http://127.0.0.1:9469/healthz")
	contains(n.t, "healthz", r.stdout, finding)
	if green := strings.HasSuffix(r.stdout, "200"); green != want {
		n.t.Errorf("healthz: %s", r)
	}
	s := n.do(root, n.varvel("status")...)
	contains(n.t, "status", s.stdout, finding)
	if green := s.code == 0; green != want {
		n.t.Errorf("status: %s", s)
	}
}
