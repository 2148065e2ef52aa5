package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// second is another Varvel on the node's machine, with directories of its own.
func (n *node) second(t *testing.T, agents map[string]string, o options) *node {
	t.Helper()
	r := *n.realm
	r.dir = tempDir(t)
	o.node += "metrics: { listen: 127.0.0.1:9569 }\nissuer: { listen: 127.0.0.1:9571 }\n"
	o.files = agents
	return r.newNode(t, o)
}

// TestTwoVarvels: two daemons govern one machine, each its own runs. What the
// runs of one have is nobody's to those of the other.
func TestTwoVarvels(t *testing.T) {
	const otherAgent = "agent: bot\negress: [{ cidr: 192.0.2.20/32, ports: [7000] }, { name: other.e2e.test, ports: [7000], opaque: true }]\nlaunch: { users: [nobody] }\n"
	a := cgroupNode(t)
	before := a.sink.unlisted()
	b := a.second(t, map[string]string{"agents.d/bot.yaml": otherAgent}, options{})
	first, second := a.shell("bot"), b.shell("bot")
	first.sends("tcp4/"+at(v4(hostListed)), "ok")
	second.sends("tcp4/"+at(v4(hostListed)), "EPERM")
	first.sends("tcp4/"+at(v4(hostNamed)), "EPERM")
	second.sends("tcp4/"+at(v4(hostNamed)), "ok")
	first.sends("tcp4/exact.e2e.test:7000", "ok")
	second.sends("tcp4/other.e2e.test:7000", "ok")
	for _, s := range []*shell{first, second} {
		s.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
		s.sends("udp4/"+at(v4(hostUnlisted)), "EPERM")
		if r := s.do("curl", "-sS", "-m", "5", endpoint4+"/v1/whoami"); !strings.Contains(r.stdout, s.n.onlyRun()) {
			t.Errorf("who is asked for: %s", r)
		}
	}
	// Neither reaches what listens for the other, be it a run or a door.
	for _, listener := range a.ports(a.realm.node) {
		second.sends("tcp/"+listener, "EPERM")
		first.sends("tcp/"+listener, "EPERM")
	}
	id, other := a.onlyRun(), b.onlyRun()
	for _, e := range a.events() {
		if e.Run == other {
			t.Errorf("one records what the other's run does: %+v", e)
		}
	}
	a.eventually("each records its own", func() bool {
		return a.refusedAt(id, v4(hostUnlisted).String()) && b.refusedAt(other, v4(hostUnlisted).String())
	})
	if a.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
	first.end()
	a.stop()
	second.sends("tcp4/"+at(v4(hostNamed)), "ok")
	second.sends("tcp4/other.e2e.test:7000", "ok")
	second.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
}

// TestNestedVarvels: cgroups above or below another Varvel's are refused, also if
// that has been killed.
func TestNestedVarvels(t *testing.T) {
	a := cgroupNode(t)
	config := map[string]string{"agents.d/bot.yaml": killAgent}
	b := a.second(t, config, options{manual: true})
	below := strings.Replace(b.commons, b.cgroup.Path, filepath.Join(a.cgroup.Path, "varvel", "runs"), 1)
	const more = "metrics: { listen: 127.0.0.1:9569 }\nissuer: { listen: 127.0.0.1:9571 }\n"
	for _, killed := range []bool{false, true} {
		b.configure("varvel.yaml", below+more)
		r := b.try(root)
		if r.code != 1 {
			t.Errorf("a Varvel below another: %s", r)
		}
		contains(t, "below", r.stderr, "inside the cgroups of another Varvel", "set `cgroup`")
		if !killed {
			a.kill()
		}
	}
	a.start()
	a.must(alice, a.run("bot", "true")...)
	a.stop()
}
