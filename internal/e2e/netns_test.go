package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/testutil"
)

// siteAgent may reach two machines by address and by name; the last name only
// from where the run is.
const siteAgent = `agent: bot
egress:
  - { cidr: 192.0.2.10/32, ports: [7000], protocol: any }
  - { cidr: "2001:db8::a/128", ports: [7000], protocol: any }
  - { name: exact.e2e.test, ports: [7000], opaque: true }
  - { name: inner.e2e.test, ports: [7000], opaque: true }
  - { name: via.e2e.test, ports: [7000], opaque: true, via: workload }
tools: [ledger]
launch: { users: [nobody] }
`

// The addresses of both ends of a site's own wire to the world.
const (
	site4, world4 = "203.0.113.2", "203.0.113.1"
	site6, world6 = "2001:db8:5::2", "2001:db8:5::1"
)

// site is a network namespace as a container has it: a wire of its own to the
// world, and its own loopback.
func (r *realm) site(t *testing.T) *testutil.NetNS {
	t.Helper()
	ns := testutil.NewNetNS(t)
	batch(t, nil, "link add site netns "+ns.Path()+" type veth peer name site netns "+r.world.Path())
	batch(t, r.world, fmt.Sprintf("link set site up\naddress add %s/24 dev site\naddress add %s/64 dev site nodad", world4, world6))
	batch(t, ns, fmt.Sprintf(`link set lo up
link set site up
address add %s/24 dev site
address add %s/64 dev site nodad
route add default via %s
route add ::/0 via %s`, site4, site6, world4, world6))
	return ns
}

// siteNode is a node with that agent.
func siteNode(t *testing.T) *node {
	t.Helper()
	return newRealm(t, "curl").newNode(t, options{files: map[string]string{"agents.d/bot.yaml": siteAgent, "tools.d/ledger.yaml": toolLedger}})
}

// sends carries out an attempt in the run, and says whether it should work.
func (s *shell) sends(target string, want string) {
	s.n.t.Helper()
	r := s.do(bin("client"), "act", "send", "from-the-site", target)
	if !strings.Contains(r.stdout, target+" "+want) {
		s.n.t.Errorf("%s: want %s: %s", target, want, r)
	}
}

// TestRunInAnotherNetwork: everything that governs a run governs it there.
func TestRunInAnotherNetwork(t *testing.T) {
	n := siteNode(t)
	n.from = n.realm.site(t)
	loop4, loop6 := n.listenIn(n.from, "tcp4", "127.0.0.1:0"), n.listenIn(n.from, "tcp6", "[::1]:0")
	for _, h := range []string{at(v4(hostUnlisted)), at(v6(hostUnlisted)), loop4, loop6} {
		n.must(alice, bin("client"), "act", "send", "control", "tcp/"+h) // the control
	}
	before := n.sink.unlisted()
	bot := n.shell("bot")
	for _, target := range targets(hostListed) {
		bot.sends(target, "ok")
	}
	for _, target := range append(targets(hostUnlisted), "tcp/"+loop4, "tcp/"+loop6) {
		bot.sends(target, "EPERM")
	}
	bot.sends("tcp4/exact.e2e.test:7000", "ok")
	bot.sends("tcp6/exact.e2e.test:7000", "ok")
	for _, base := range []string{endpoint4, endpoint6} {
		who := bot.do("curl", "-sS", "-g", "-m", "5", base+"/v1/whoami").stdout
		contains(t, "whoami", who, "spiffe://e2e.test/agent/bot", n.onlyRun())
	}
	for _, server := range []string{"dns4/192.0.2.99:53", "dns6/[2001:db8::99]:53"} {
		r := bot.do(bin("client"), "act", "send", "exact.e2e.test", server)
		contains(t, "a question", r.stdout, "ok")
		if r := bot.do(bin("client"), "act", "send", "exfil.e2e.test", server); r.code == 0 {
			t.Errorf("an unlisted name: %s", r)
		}
	}
	if n.sink.unlisted() != before || n.asked(t, "exfil") != 0 {
		t.Error("something unlisted has arrived")
	}
	id := n.onlyRun()
	n.eventually("the refusals are recorded", func() bool {
		return n.refusedAt(id, v4(hostUnlisted).String()) && n.refusedAt(id, v6(hostUnlisted).String())
	})
	bot.end()
	n.eventually("the doors are closed", func() bool { return len(n.ports(n.from)) == 2 }) // those of the test
}

// refusedAt reports whether an event says that the run was refused an address.
func (n *node) refusedAt(run, address string) bool {
	n.t.Helper()
	for _, e := range n.events("--run", run, "--effect", "deny") {
		if e.Agent == "bot" && e.Actor != "" && e.Target != nil && e.Target.Address.String() == address {
			return true
		}
	}
	return false
}

// listenIn is a service of a network namespace that answers with what it gets.
func (n *node) listenIn(ns *testutil.NetNS, network, address string) string {
	n.t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { n.sink.takeTCP(ctx, l) })
	n.t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return l.Addr().String()
}

// ports are the addresses of the TCP listeners on a namespace's loopback (proc_net(5)).
func (n *node) ports(ns *testutil.NetNS) (list []string) {
	n.t.Helper()
	var raw []byte
	if err := ns.Do(func() error {
		for _, name := range []string{"tcp", "tcp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			raw = append(raw, b...)
		}
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		address, port, _ := strings.Cut(f[1], ":")
		if len(f) > 3 && f[3] == "0A" && (address == "0100007F" || address == "00000000000000000000000001000000") {
			p, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				n.t.Fatal(err)
			}
			host := map[bool]string{true: "127.0.0.1", false: "::1"}[len(address) == 8]
			list = append(list, net.JoinHostPort(host, strconv.FormatUint(p, 10)))
		}
	}
	return list
}

// TestVia: a name is dialled from the node, or from where the run is.
func TestVia(t *testing.T) {
	n := siteNode(t)
	site := n.realm.site(t)
	// The names lead to a machine that the node has no way to.
	batch(t, n.realm.node, "route add blackhole 192.0.2.20/32\nroute add blackhole 2001:db8::14/128")
	n.from = site
	bot := n.shell("bot")
	bot.sends("tcp4/via.e2e.test:7000", "ok")
	bot.sends("tcp6/via.e2e.test:7000", "ok")
	for _, network := range []string{"tcp4", "tcp6"} {
		if r := bot.do(bin("client"), "act", "send", "x", network+"/exact.e2e.test:7000"); r.code == 0 {
			t.Errorf("control: the node reaches the machine: %s", r)
		}
	}
	id := n.onlyRun()
	n.eventually("the outcome is recorded", func() bool {
		for _, e := range n.events("--run", id, "--kind", string(audit.KindConnect)) {
			if e.Target != nil && e.Target.Name == "via.e2e.test" && (e.Target.Address == v4(hostNamed) || e.Target.Address == v6(hostNamed)) {
				return true
			}
		}
		return false
	})
	// A run on the node has no other way than the node's.
	bot.end()
	n.from = nil
	if r := n.do(alice, n.run("bot", bin("client"), "act", "send", "x", "tcp4/via.e2e.test:7000")...); r.code == 0 {
		t.Errorf("a run on the node reaches the machine: %s", r)
	}
}

// TestViaOfTool: the same for a tool, whose requests the gateway reads.
func TestViaOfTool(t *testing.T) {
	agent := "agent: bot\ntools: [svc]\nlaunch: { users: [nobody] }\n"
	n := newRealm(t, "curl").newNode(t, options{files: map[string]string{"agents.d/bot.yaml": agent, "tools.d/svc.yaml": toolSvc}})
	site := n.realm.site(t)
	batch(t, n.realm.node, "route add blackhole 192.0.2.11/32\nroute add blackhole 2001:db8::b/128")
	get := n.run("bot", "curl", "-sS", "-m", "10", "-w", " status=%{http_code}", "http://tool.e2e.test:8080/look/here")
	n.from = site
	if r := n.do(alice, get...); strings.Contains(r.stdout, "status=200") || n.tool.count("/look/here") != 0 {
		t.Errorf("control: the node reaches the tool: %s", r)
	}
	n.configure("tools.d/svc.yaml", toolSvc+"via: workload\n")
	n.must(root, n.varvel("reload")...)
	contains(t, "from the run", n.must(alice, get...), "done", "status=200")
	if n.tool.count("GET /look/here") != 1 {
		t.Error("the tool has not seen the request")
	}
}

// TestNetworkWithoutRoute: what goes through the node works, and nothing else.
func TestNetworkWithoutRoute(t *testing.T) {
	n := siteNode(t)
	n.from = testutil.NewNetNS(t)
	bot := n.shell("bot")
	bot.sends("tcp4/exact.e2e.test:7000", "ok")
	bot.sends("tcp6/exact.e2e.test:7000", "ok")
	contains(t, "whoami", bot.do("curl", "-sS", "-g", "-m", "5", endpoint6+"/v1/whoami").stdout, "agent/bot")
	bot.sends("tcp4/"+at(v4(hostListed)), "ENETUNREACH")
	bot.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
	bot.sends("tcp4/via.e2e.test:7000", "") // it ends
	if n.sink.count(at(v4(hostListed))) != 0 {
		t.Error("there is a way out")
	}
}

// TestNetworkWithoutIPv6Loopback: what can't be redirected is refused by name.
func TestNetworkWithoutIPv6Loopback(t *testing.T) {
	n := siteNode(t)
	n.from = n.realm.site(t)
	n.must(root, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	bot := n.shell("bot")
	bot.sends("tcp4/exact.e2e.test:7000", "ok")
	bot.sends("tcp6/[fd00:ec2::23]:80", "EPERM")
	bot.sends("tcp6/"+at(v6(hostListed)), "ok")
	id := n.onlyRun()
	n.eventually("the reason is recorded", func() bool {
		return strings.Contains(n.must(root, n.varvel("audit", "--run", id, "--effect", "deny", "-o", "json")...), "no-loopback")
	})
	n.must(root, n.varvel("revoke", id)...)
	bot.sends("tcp6/[fd00:ec2::23]:80", "EPERM")
}

// TestNetworkWithoutDoors: where the doors cannot be opened, there is no run.
func TestNetworkWithoutDoors(t *testing.T) {
	n := siteNode(t)
	ports := n.ports(n.realm.node)
	n.from = testutil.NewNetNS(t)
	n.must(root, "ip", "link", "set", "lo", "down")
	r := n.do(alice, n.run("bot", "true")...)
	if r.code == 0 {
		t.Errorf("a run without loopback: %s", r)
	}
	contains(t, "loopback is down", r.stderr, "no loopback", "ip link set lo up")
	n.must(root, "ip", "link", "set", "lo", "up")
	var held []net.Listener
	if err := n.from.Do(func() error {
		for _, p := range ports {
			l, err := net.Listen("tcp", p)
			if err != nil {
				return err
			}
			held = append(held, l)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r = n.do(alice, n.run("bot", "true")...)
	contains(t, "the port is taken", r.stderr, "is taken", "restart varveld")
	for _, l := range held {
		l.Close()
	}
	n.must(alice, n.run("bot", "true")...)
	if ids := n.runIDs(); len(ids) != 0 {
		t.Errorf("runs are left: %v", ids)
	}
}

// TestRunsShareANetwork: doors are there from the first run to the last, and a
// revocation there cuts what it has to, of one run alone.
func TestRunsShareANetwork(t *testing.T) {
	n := siteNode(t)
	n.from = n.realm.site(t)
	h := n.hold("bot", "tcp4/"+at(v4(hostListed)), "tcp6/"+at(v6(hostListed)), "tcp4/exact.e2e.test:7000")
	id := n.onlyRun()
	second := n.shell("bot")
	second.sends("tcp4/exact.e2e.test:7000", "ok")
	n.from = nil
	third := n.shell("bot") // on the node, where the doors' ports are the same
	third.sends("tcp4/exact.e2e.test:7000", "ok")
	out := n.must(root, n.varvel("revoke", id)...)
	contains(t, "revoke", out, id)
	h.becomes(0, "ECONNABORTED")
	h.becomes(1, "ECONNABORTED")
	h.becomes(2, "EOF", "ECONNRESET", "ECONNABORTED")
	n.eventually("a reset at the receiver", func() bool { return n.resets(at(v6(hostListed))) == 1 })
	n.must(root, n.varvel("revoke", "--kill", id)...)
	n.eventually("the run is over", func() bool { return len(n.runIDs()) == 2 })
	second.sends("tcp4/exact.e2e.test:7000", "ok")
	third.sends("tcp4/exact.e2e.test:7000", "ok")
}

// TestNextDaemonUnderAnotherNetwork: a run in another network namespace goes on with
// the next daemon, with its doors, its names and its refusals. What it asks for in
// between waits at the doors.
func TestNextDaemonUnderAnotherNetwork(t *testing.T) {
	n := siteNode(t)
	site := n.realm.site(t)
	n.from = site
	x, id := n.steady()
	n.from = nil
	try := func() {
		t.Helper()
		x.sends("tcp4/exact.e2e.test:7000", "ok")
		x.sends("tcp6/exact.e2e.test:7000", "ok")
		x.sends("tcp4/"+at(v4(hostListed)), "ok")
		x.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
	}
	try()
	for how, end := range n.ways() {
		n.from = site
		late := n.talk(alice, n.run("bot", bin("client"), "act", "later", "late", "exact.e2e.test:7000")...)
		n.from = nil
		late.says("resolved")
		n.away(end, func() {
			x.sends("tcp4/"+at(v4(hostUnlisted)), "EPERM")
			late.tell("go")
			late.says("trying")
			n.eventually("the connection waits", func() bool { return waitingAtDoors(site) > 0 })
		})
		late.says("worked")
		late.says("trying")
		late.says("worked")
		late.says("ok")
		late.ends(0)
		n.eventually("its end", func() bool { return len(n.runIDs()) == 1 })
		if got := n.onlyRun(); got != id {
			t.Fatalf("%s: the run is %s now, and was %s", how, got, id)
		}
		try()
	}
	if n.sink.unlisted() != 0 {
		t.Error("something unlisted has arrived")
	}
	x.in.Close()
	x.ends(5)
	n.eventually("the run's end is recorded", func() bool { return len(n.events("--kind", "run.end", "--run", id)) == 1 })
	n.from = site // its doors were closed, and are opened again
	n.shell("bot").sends("tcp4/exact.e2e.test:7000", "ok")
}

// TestKeeperDiesUnderAnotherNetwork: without the keeper the doors end with the
// daemon, and so do the runs behind them; nothing opens.
func TestKeeperDiesUnderAnotherNetwork(t *testing.T) {
	n := siteNode(t)
	site := n.realm.site(t)
	n.from = site
	before := n.sink.unlisted()
	kept := n.keep("bot", "tcp4/"+at(v4(hostListed)), "tcp4/"+at(v4(hostUnlisted)), "tcp4/exact.e2e.test:7000")
	n.becomes(kept[0], "ok")
	n.becomes(kept[2], "ok")
	n.stopKeeper() // so that it is not replaced in between
	n.kill()
	n.killKeeper()
	n.from = nil
	n.start()
	n.from = site
	bot := n.shell("bot")
	bot.sends("tcp4/exact.e2e.test:7000", "ok")
	bot.sends("tcp4/"+at(v4(hostUnlisted)), unix.ErrnoName(unix.EPERM))
	if n.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
}
