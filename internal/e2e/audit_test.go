package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/audit"
)

// TestAudit searches, follows and verifies the log of several runs.
func TestAudit(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{
		"agents.d/bot.yaml":   reloadAgent(ruleListed),
		"agents.d/other.yaml": "agent: other\nlaunch: { users: [nobody] }\n",
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follower := n.command(ctx, root, n.varvel("audit", "--follow", "-o", "json", "--effect", "deny", "--agent", "other")...)
	var followed lines
	follower.Stdout = &followed
	n.fork(follower)
	bot, other := n.shell("bot"), n.shell("other")
	bot.do(bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted)), "tcp/later.e2e.test:7000", "tcp4/"+at(v4(hostListed)))
	other.do(bin("client"), "act", "send", "x", "udp6/"+at(v6(hostUnlisted)), "dns4/192.0.2.53:53")
	n.eventually("the follower sees a denial", func() bool { return strings.Contains(followed.String(), `"2001:db8::42"`) })
	cancel()
	_ = follower.Wait()
	if strings.Contains(followed.String(), `"agent":"bot"`) {
		t.Error("the follower got events that it did not ask for")
	}
	n.eventually("both runs' denials are there", func() bool {
		return len(n.events("--agent", "bot", "--effect", "deny")) >= 2 && len(n.events("--agent", "other", "--effect", "deny")) >= 1
	})
	n.eventually("what was allowed is there, counted", func() bool {
		flows := n.events("--kind", "flow")
		return len(flows) == 1 && flows[0].Agent == "bot" && flows[0].Actor != "" && flows[0].RuleSet != "" && flows[0].Count == 1 &&
			flows[0].Target.Address == v4(hostListed) && flows[0].Target.Port == port && flows[0].Target.Protocol == "tcp"
	})
	n.filters()
	n.identities()
	// After a crash, the log is whole, and the next daemon goes on with it.
	dir := filepath.Join(n.dir, "state", "audit")
	n.kill()
	contains(t, "verify after the crash", n.must(root, n.varvel("audit", "verify", "--dir", dir)...), "")
	n.start()
	n.must(alice, n.run("bot", "true")...)
	n.must(root, n.varvel("audit", "verify", "--dir", dir)...)
	n.stop()
	n.must(root, n.varvel("audit", "verify", "--dir", dir)...)
	r := n.do(root, n.varvel("audit")...)
	if r.code != 4 {
		t.Errorf("the log of a daemon that is down: %s", r)
	}
}

// filters compares what the tool selects with what is in the log.
func (n *node) filters() {
	n.t.Helper()
	all := n.events()
	run := all[len(all)-1].Run
	tests := []struct {
		args []string
		want func(e audit.Event) bool
	}{
		{[]string{"--agent", "bot"}, func(e audit.Event) bool { return e.Agent == "bot" }},
		{[]string{"--effect", "deny"}, func(e audit.Event) bool { return e.Effect == "deny" }},
		{[]string{"--kind", "dns"}, func(e audit.Event) bool { return e.Kind == "dns" }},
		{[]string{"--run", run}, func(e audit.Event) bool { return e.Run == run }},
		{[]string{"--actor", "spiffe://e2e.test/agent/other"}, func(e audit.Event) bool { return e.Actor == "spiffe://e2e.test/agent/other" }},
		{[]string{"--since", "1h"}, func(audit.Event) bool { return true }},
		{[]string{"--until", "1h"}, func(audit.Event) bool { return false }},
	}
	for _, tt := range tests {
		var want []uint64
		for _, e := range all {
			if tt.want(e) {
				want = append(want, e.Seq)
			}
		}
		// From the daemon, and up to where the list above ends.
		var got []uint64
		args := append(n.varvel("audit", "-o", "json", "--limit", "0"), tt.args...)
		for line := range strings.Lines(n.must(root, args...)) {
			var e audit.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				n.t.Fatalf("%v: %s", err, line)
			}
			if e.Seq <= all[len(all)-1].Seq {
				got = append(got, e.Seq)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			n.t.Errorf("audit %s: events %v, want %v", tt.args, got, want)
		}
	}
	if r := n.do(root, n.varvel("audit", "--kind", "nosuch")...); r.code != 2 {
		n.t.Errorf("an unknown kind: %s", r)
	}
}

// identities: each denial is attributed to its run.
func (n *node) identities() {
	n.t.Helper()
	agents := map[string]string{}
	for _, e := range n.events("--kind", "run.start") {
		agents[e.Run] = e.Agent
	}
	denials := 0
	for _, e := range n.events("--effect", "deny") {
		denials++
		if e.Run == "" || agents[e.Run] != e.Agent || e.Actor != "spiffe://e2e.test/agent/"+e.Agent ||
			e.StartedBy == nil || e.StartedBy.UID != uint32(alice.id) || e.Node == "" || e.Boot == "" {
			n.t.Errorf("a denial without a full identity: %+v", e)
		}
	}
	if denials == 0 {
		n.t.Error("no denials: the test shows nothing")
	}
}

// TestUnrelated: processes in no run are not touched, also while runs come and go.
func TestUnrelated(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
	s := n.shell("bot")
	everything := append(append(targets(hostUnlisted), targets(hostListed)...), "tcp/other.e2e.test:7000", "tcp/later.e2e.test:7000")
	for _, as := range []user{alice, root} {
		n.must(as, append([]string{bin("client"), "act", "send", "free.exfil.test"}, everything...)...)
	}
	n.must(alice, bin("client"), "act", "send", "free.exfil.test", "dns4/192.0.2.53:53")
	// A neighbour of the run in the cgroup tree, too.
	script := fmt.Sprintf(`echo $$ >%s/cgroup.procs && exec "$@"`, n.cgroup.Path)
	n.must(root, append([]string{"sh", "-c", script, "sh", bin("client"), "act", "send", "near"}, everything...)...)
	if r := s.do(bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted))); !strings.Contains(r.stdout, "EPERM") {
		t.Errorf("the control: %s", r)
	}
}

// TestCrowd starts many runs at once.
func TestCrowd(t *testing.T) {
	runs := 50
	if long() {
		runs = 200 // the launcher holds 256 of one user open
	}
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
	start := time.Now()
	var all []*background
	for i := range runs {
		all = append(all, n.begin(alice, n.run("bot", bin("client"), "act", "send", fmt.Sprintf("crowd-%d;", i),
			"tcp/exact.e2e.test:7000", "udp6/"+at(v6(hostListed)), "tcp4/"+at(v4(hostUnlisted)))...))
	}
	for i, b := range all {
		r := n.await(b)
		if strings.Count(r.stdout, " ok\n") != 2 || strings.Count(r.stdout, "EPERM") != 1+1 {
			t.Errorf("run %d: %s", i, r)
		}
	}
	for i := range runs {
		mark := fmt.Sprintf("crowd-%d;", i)
		if got := n.sink.count(mark); got != 2 {
			t.Errorf("%d messages of run %d have arrived, not 2", got, i)
		}
	}
	if got := n.sink.unlisted(); got != 0 {
		t.Errorf("%d unlisted attempts arrived", got)
	}
	n.eventually("all runs are over", func() bool { return len(n.runIDs()) == 0 })
	n.allEnded(runs)
	t.Logf("%d runs in %s", runs, time.Since(start).Round(time.Millisecond))
}

// allEnded checks that the log has the start, a denial and the end of each run.
func (n *node) allEnded(runs int) {
	n.t.Helper()
	seen := map[string][]string{}
	n.eventually("every run has ended in the log", func() bool { return len(n.events("--kind", "run.end")) == runs })
	for _, e := range n.events() {
		switch {
		case e.Kind == audit.KindRunStart || e.Kind == audit.KindRunEnd, e.Kind == audit.KindConnect && e.Effect == "deny":
			seen[e.Run] = append(seen[e.Run], fmt.Sprintf("%s %s %+v %v", e.Kind, e.Component, e.Target, e.Reasons))
		}
	}
	for run, list := range seen {
		if len(list) != 3 {
			n.t.Errorf("%s has not just start, denial and end:\n\t%s", run, strings.Join(list, "\n\t"))
		}
	}
	if len(seen) != runs {
		n.t.Errorf("the log knows %d runs, not %d", len(seen), runs)
	}
}
