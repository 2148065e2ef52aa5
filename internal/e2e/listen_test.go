package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/audit"
)

// serveAct takes TCP connections and datagrams at a port, over both families, and
// sends back what comes: serve FILE PORT. It writes down how many it was given.
func serveAct(args []string) error {
	l, err := net.Listen("tcp", "[::]:"+args[1])
	if err != nil {
		return err
	}
	p, err := net.ListenPacket("udp", "[::]:"+args[1])
	if err != nil {
		return err
	}
	given := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			<-given
			_ = note(args[0], "%d", n)
		}
	}()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			given <- struct{}{}
			_, _ = p.WriteTo(buf[:n], from)
		}
	}()
	if err := note(args[0], "0"); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		given <- struct{}{}
		go func() {
			_, _ = io.Copy(c, c)
			c.Close()
		}()
	}
}

// dialFrom connects from one of the world's machines to a port of the node.
func (r *realm) dialFrom(ctx context.Context, network string, machine, to netip.Addr, port uint16) (c net.Conn, err error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(machine, 0))}
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(machine, 0))
	}
	err = r.world.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, netip.AddrPortFrom(to, port).String())
		return err
	})
	return c, err
}

// echoes says a word from outside and reports whether it comes back.
func (n *node) echoes(network string, machine, to netip.Addr, port uint16, limit time.Duration) bool {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	defer cancel()
	c, err := n.dialFrom(ctx, network, machine, to, port)
	if err != nil {
		return false
	}
	defer c.Close()
	return exchange(c, "word", limit) == nil
}

func listenAgent(rules ...string) string {
	text := "agent: bot\nlaunch: { users: [nobody] }\n"
	if len(rules) > 0 {
		text += "listen:\n  - " + strings.Join(rules, "\n  - ") + "\n"
	}
	return text
}

// TestListen grants a port to one machine of two, over everything, and takes it back.
func TestListen(t *testing.T) {
	const port = 8080
	rule := `{ port: 8000-8100, protocol: any, from: [192.0.2.10/32, "2001:db8::a/128"], why: "tests" }`
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": listenAgent(rule)}})
	file := filepath.Join(n.dir, "shared", "served")
	cli := n.begin(alice, n.run("bot", bin("client"), "act", "serve", file, strconv.Itoa(port))...)
	t.Cleanup(func() {
		_ = cli.cmd.Process.Signal(syscall.SIGTERM)
		n.await(cli)
	})
	served := func() string { b, _ := os.ReadFile(file); return string(b) }
	n.eventually("the run listens", func() bool { return served() == "0" })
	run := n.onlyRun()
	ways := []struct {
		network             string
		to, listed, foreign netip.Addr
	}{
		{"tcp", v4(hostNode), v4(hostListed), v4(hostUnlisted)}, {"tcp", v6(hostNode), v6(hostListed), v6(hostUnlisted)},
		{"udp", v4(hostNode), v4(hostListed), v4(hostUnlisted)}, {"udp", v6(hostNode), v6(hostListed), v6(hostUnlisted)},
	}
	for i, w := range ways {
		if n.echoes(w.network, w.foreign, w.to, port, time.Second) {
			t.Errorf("%+v: who is not granted is answered", w)
		}
		if !n.echoes(w.network, w.listed, w.to, port, patience) {
			t.Errorf("%+v: who is granted is not answered", w)
		}
		n.eventually("what was granted is counted by the program", func() bool { return served() == strconv.Itoa(i+1) })
	}
	n.tellsWhoCame(run, port)
	n.explainsWhoComes(run)

	held, err := n.dialFrom(t.Context(), "tcp", v4(hostListed), v4(hostNode), port)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := exchange(held, "word", patience); err != nil {
		t.Fatal(err)
	}
	n.configure("agents.d/bot.yaml", listenAgent(`{ port: 8080, protocol: udp, from: ["2001:db8::a/128"] }`))
	n.must(root, n.varvel("reload")...)
	held.SetDeadline(time.Now().Add(patience))
	if _, err := held.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection whose grant is gone: %v, want ECONNRESET", err)
	}
	for i, w := range ways {
		if got, want := n.echoes(w.network, w.listed, w.to, port, time.Second), i == 3; got != want {
			t.Errorf("%+v after the reload: %v", w, got)
		}
	}
	cut := false
	for _, e := range n.events("--kind", "connect", "--run", run) {
		cut = cut || e.Activity == "cut" && e.Count == 1
	}
	if !cut {
		t.Error("the cut is not recorded")
	}
}

// tellsWhoCame looks for the events of those who were turned away, each with the
// run's identity, and of those who were let in.
func (n *node) tellsWhoCame(run string, port uint16) {
	n.t.Helper()
	for _, machine := range []netip.Addr{v4(hostUnlisted), v6(hostUnlisted)} {
		for _, protocol := range []string{"tcp", "udp"} {
			n.eventually("the event of "+machine.String()+" over "+protocol, func() bool {
				return n.hasPeer("connect", "ingress", run, machine, port, protocol, "inbound")
			})
		}
	}
	for _, machine := range []netip.Addr{v4(hostListed), v6(hostListed)} {
		for _, protocol := range []string{"tcp", "udp"} {
			n.eventually("the flow of "+machine.String()+" over "+protocol, func() bool {
				return n.hasPeer("flow", "accept", run, machine, port, protocol, "")
			})
		}
	}
	for _, e := range n.events("--kind", "connect", "--run", run) {
		if e.Peer != nil && (e.Agent != "bot" || e.Actor != "spiffe://e2e.test/agent/bot" || e.StartedBy == nil || e.Effect != "deny") {
			n.t.Errorf("the event of a peer: %+v", e)
		}
	}
}

func (n *node) hasPeer(kind, activity, run string, machine netip.Addr, port uint16, protocol, rule string) bool {
	n.t.Helper()
	for _, e := range n.events("--kind", kind, "--run", run) {
		if string(e.Activity) == activity && e.Peer != nil && e.Peer.Address == machine && e.Target != nil &&
			e.Target.Port == port && e.Target.Protocol == protocol && (rule == "" || hasRule(e, rule)) {
			return true
		}
	}
	return false
}

func hasRule(e audit.Event, rule string) bool {
	return len(e.Reasons) == 1 && e.Reasons[0].Rule == rule
}

func (n *node) explainsWhoComes(run string) {
	n.t.Helper()
	contains(n.t, "why", n.must(root, n.varvel("why", run, "8080", "--from", v4(hostListed).String())...), "ALLOWED", "bot.yaml:4")
	contains(n.t, "why not", n.must(root, n.varvel("why", run, "8080", "--from", v4(hostUnlisted).String())...), "DENIED", "listen")
	contains(n.t, "agents", n.must(root, n.varvel("agents")...), "8000-8100/any")
	contains(n.t, "audit", n.must(root, n.varvel("audit", "--kind", "connect", "--run", run)...), "port 8080/tcp from 192.0.2.66:")
}

// TestWithoutALoopbackAddress: a host that lacks one works over the other family,
// and says what does not.
func TestWithoutALoopbackAddress(t *testing.T) {
	for _, tt := range []struct {
		name, lo, node, works, refused, missing string
	}{
		{"no ::1", "address del ::1/128 dev lo", "", "tcp4/tool", "tcp6/" + at(netip.MustParseAddr("fd56:6172:7665:6c00::1")), "::1"},
		{"no 127.0.0.1", "address del 127.0.0.1/8 dev lo",
			"metrics: { listen: \"[::1]:9469\" }\nissuer: { listen: \"[::1]:9471\" }\n", "tcp6/tool", "", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRealm(t)
			batch(t, r.node, tt.lo)
			n := r.newNode(t, options{node: tt.node, files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleListed, ruleListed6, ruleName)},
				resolv: "nameserver " + v4(hostNames).String() + "\nnameserver " + v6(hostNames).String() + "\n"})
			s := n.shell("bot")
			run := n.onlyRun()
			network := tt.works[:4]
			if r := s.do(bin("client"), "act", "send", "named", network+"/exact.e2e.test:7000"); r.code != 0 {
				t.Errorf("a name over %s: %s", network, r)
			}
			direct := map[string]string{"tcp4": at(v4(hostListed)), "tcp6": at(v6(hostListed))}
			for network, to := range direct {
				if r := s.do(bin("client"), "act", "send", "direct", network+"/"+to); r.code != 0 {
					t.Errorf("an address over %s: %s", network, r)
				}
			}
			other := map[string]string{"tcp4": "tcp6", "tcp6": "tcp4"}[network]
			endpoint := map[string]string{"tcp4": "169.254.170.2:80", "tcp6": "[fd00:ec2::23]:80"}[other]
			r2 := s.do(bin("client"), "act", "send", "named", other+"/"+endpoint)
			if r2.code != 1 || !strings.Contains(r2.stdout, "EPERM") {
				t.Errorf("the endpoint over %s: %s", other, r2)
			}
			n.eventually("the reason is recorded", func() bool {
				for _, e := range n.events("--kind", "connect", "--run", run) {
					if hasRule(e, "no-loopback") {
						return true
					}
				}
				return false
			})
			contains(t, "status", n.must(root, n.varvel("status")...), "redirection", tt.missing)
		})
	}
}
