package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// steady starts a run that says "ready", and then tries what it is told. It outlives
// the daemon.
func (n *node) steady() (x *talk, id string) {
	n.t.Helper()
	before := map[string]bool{}
	for _, old := range n.runIDs() {
		before[old] = true
	}
	x = n.talk(alice, n.run("bot", "sh", "-c", `echo ready; while read to; do `+bin("client")+` act send steady "$to"; done; exit 5`)...)
	x.says("ready")
	n.eventually("the run is listed", func() bool {
		for _, now := range n.runIDs() {
			if !before[now] {
				id = now
			}
		}
		return id != ""
	})
	n.allBegun()
	return x, id
}

func (x *talk) sends(target, outcome string) {
	x.n.t.Helper()
	x.tell(target)
	x.says(target + " " + outcome)
	x.says(outcome)
}

// TestStateThatCannotBe: each of three runs is damaged in another way while no
// daemon is there; it is ended with the reason. The fourth goes on.
func TestStateThatCannotBe(t *testing.T) {
	n := survivor(t)
	good, goodID := n.steady()
	forge := func(id, old, new string) {
		t.Helper()
		file := filepath.Join(n.dir, "run", "runs", id, "run.json")
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), old) {
			t.Fatalf("%s: %s, %v", old, b, err)
		}
		if err := os.WriteFile(file, []byte(strings.Replace(string(b), old, new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]func(id string){
		"cannot be read":                     func(id string) { forge(id, "{", "{{") },
		"another boot":                       func(id string) { forge(id, strings.TrimSpace(string(boot)), "11111111-2222-3333-4444-555555555555") },
		"not the one that it was started in": func(id string) { forge(id, `"cgroup_id":`, `"cgroup_id":1`) },
		"another network namespace":          func(id string) { forge(id, `"netns":"net:[`, `"netns":"net:[1`) },
		"only about to start":                func(id string) { forge(id, `"stage":"started"`, `"stage":"starting"`) },
		"nothing was kept of it":             func(id string) { _ = os.RemoveAll(filepath.Join(n.dir, "run", "runs", id)) },
		"is not a canonical host name":       func(id string) { n.addName(id, "198.18.0.1 fd56:6172:7665:6c00::1 A..B\n") },
		"names, line 1":                      func(id string) { n.addName(id, "nonsense\n") },
	}
	ids, talks := map[string]string{}, map[string]*talk{}
	for reason := range cases {
		talks[reason], ids[reason] = n.steady()
	}
	n.away(n.kill, func() {
		for reason, damage := range cases {
			damage(ids[reason])
		}
	})
	for reason := range cases {
		talks[reason].ends(125)
		ended := n.events("--kind", "run.end", "--run", ids[reason])
		if len(ended) != 1 || ended[0].Activity != "daemon-restarted" || !strings.Contains(ended[0].Message, reason) {
			t.Errorf("%s: its end is %+v", reason, ended)
		}
		if got := n.adoptions(ids[reason]); len(got) > 0 && reason != "is not a canonical host name" {
			t.Errorf("%s: it was adopted", reason)
		}
	}
	if live := n.onlyRun(); live != goodID {
		t.Errorf("the run that goes on is %s, and should be %s", live, goodID)
	}
	good.sends("tcp4/"+at(v4(hostListed)), "ok")
	good.sends("tcp/exact.e2e.test:7000", "ok")
	good.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
	good.in.Close()
	good.ends(5)
}

func (n *node) addName(id, line string) {
	f, err := os.OpenFile(filepath.Join(n.dir, "run", "runs", id, "names"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(line)
		f.Close()
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// TestARunsCgroupIsRemoved while no daemon is there: its end is recorded.
func TestARunsCgroupIsRemoved(t *testing.T) {
	n := survivor(t)
	x, id := n.steady()
	dir := filepath.Join(n.cgroup.Path, "varvel", "runs", id)
	n.away(n.kill, func() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		n.eventually("the cgroup goes", func() bool { return unix.Rmdir(dir) == nil })
	})
	x.ends(125)
	ended := n.events("--kind", "run.end", "--run", id)
	if len(ended) != 1 || !strings.Contains(ended[0].Message, "its cgroup is gone") {
		t.Errorf("its end is %+v", ended)
	}
}

// TestABadConfigurationAtRestart: the daemon does not start, says what that means,
// and the run stays governed and goes on with the next one that starts.
func TestABadConfigurationAtRestart(t *testing.T) {
	n := survivor(t)
	x, id := n.steady()
	n.kill()
	for name, text := range map[string]string{
		"agents.d/bot.yaml": "agent: bot\nnonsense: true\n",
		"varvel.yaml":       n.commons + "metrics: { listen: \"192.0.2.99:1\" }\n", // no address of this node
	} {
		old, err := os.ReadFile(filepath.Join(n.dir, "config", name))
		if err != nil {
			t.Fatal(err)
		}
		n.configure(name, text)
		r := n.try(root)
		if r.code == 0 || r.code == 124 {
			t.Errorf("%s: %s", name, r)
		}
		contains(t, name, r.stderr, "stay governed")
		x.sends("tcp4/"+at(v4(hostListed)), "ok")
		x.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
		n.configure(name, string(old))
	}
	n.start()
	if got := n.onlyRun(); got != id {
		t.Errorf("the run is %s now", got)
	}
	x.sends("tcp/exact.e2e.test:7000", "ok")
	x.in.Close()
	x.ends(5)
	if n.sink.unlisted() > 0 {
		t.Error("something unlisted has arrived")
	}
}

// TestPolicyTightensWhileNoDaemonIsThere: the run goes on by the rules of now, and
// connections that these do not allow end.
func TestPolicyTightensWhileNoDaemonIsThere(t *testing.T) {
	n := survivor(t)
	x, id := n.steady()
	x.sends("tcp4/"+at(v4(hostListed)), "ok")
	x.sends("tcp/exact.e2e.test:7000", "ok")
	keep := filepath.Join(n.dir, "shared", "kept")
	y := n.talk(alice, n.run("bot", bin("client"), "act", "keep", keep, "tcp4/"+at(v4(hostListed)))...)
	n.eventually("a connection is kept", func() bool { b, _ := os.ReadFile(keep); return strings.HasSuffix(string(b), " ok") })
	n.away(n.kill, func() {
		n.configure("agents.d/bot.yaml", "agent: bot\negress:\n  - { name: other.e2e.test, ports: [7000], opaque: true }\nlaunch: { users: [nobody] }\n")
	})
	x.sends("tcp4/"+at(v4(hostListed)), "EPERM")
	x.sends("tcp/other.e2e.test:7000", "ok")
	n.eventually("the kept connection ends", func() bool { b, _ := os.ReadFile(keep); return strings.HasSuffix(string(b), " EPERM") })
	// An agent that is not configured any more may reach nothing.
	n.away(n.kill, func() {
		if err := os.Remove(filepath.Join(n.dir, "config", "agents.d", "bot.yaml")); err != nil {
			t.Fatal(err)
		}
	})
	x.sends("tcp4/"+at(v4(hostListed)), "EPERM")
	x.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
	if len(n.adoptions(id)) != 2 {
		t.Errorf("adopted %+v", n.adoptions(id))
	}
	x.in.Close()
	x.ends(5)
	_ = y.cmd.Process.Signal(unix.SIGTERM)
	y.ends(128 + 15)
}

// TestBpffsIsUnmounted: the keeper holds what is attached, so the rules hold
// without pins and without a daemon, and the next daemon finds them.
func TestBpffsIsUnmounted(t *testing.T) {
	n := survivor(t)
	x, id := n.steady()
	x.sends("tcp/exact.e2e.test:7000", "ok")
	n.away(func() {
		// At the last moment, or the daemon would say so. It holds the directory.
		n.must(root, "umount", "-l", filepath.Join(n.dir, "bpf"))
		n.kill()
	}, func() {
		if pins := n.pins(); len(pins) > 0 {
			t.Errorf("there are pins: %v", pins)
		}
		x.sends("tcp4/"+at(v4(hostListed)), "ok")
		x.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
	})
	if got := n.onlyRun(); got != id {
		t.Errorf("the run is %s now", got)
	}
	x.sends("tcp/exact.e2e.test:7000", "ok")
	x.sends("tcp4/"+at(v4(hostListed)), "ok")
	x.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
	// With a daemon it is said.
	n.must(root, "umount", "-l", filepath.Join(n.dir, "bpf"))
	n.eventually("health says it", func() bool {
		for _, e := range n.events("--kind", "health") {
			if e.Component == "kernel-pins" && e.Activity == "degraded" {
				return true
			}
		}
		return false
	})
	n.eventually("it is mounted again, and the pins are made again", func() bool { return len(n.pins()) > 0 })
	x.in.Close()
	x.ends(5)
	if n.sink.unlisted() > 0 {
		t.Error("something unlisted has arrived")
	}
}
