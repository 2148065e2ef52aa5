package kernel

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// TestLinkLocalIsNamed: an address that means another host on each link is refused,
// and the reason says so, whatever the rules are.
func TestLinkLocalIsNamed(t *testing.T) {
	e := newTestEnv(t)
	o := newOutside(t)
	linkLocal := func(device string) string {
		t.Helper()
		out, err := exec.Command("ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link").Output()
		if fields := strings.Fields(string(out)); err == nil && len(fields) > 3 {
			return netip.MustParsePrefix(fields[3]).Addr().String()
		}
		t.Fatalf("no link-local address on %s: %v %s", device, err, out)
		return ""
	}
	ip(t, "addr add fe80::1/64 dev veth0 nodad")
	var theirs, our string
	var tcp, udp *receiver
	if err := o.ns.Do(func() error {
		ip(t, "addr add fe80::2/64 dev veth1 nodad")
		theirs = linkLocal("veth1")
		tcp, udp = receive(t, "tcp6", "[fe80::2%veth1]:0"), receive(t, "udp6", "[fe80::2%veth1]:0")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	our = linkLocal("veth0")
	if theirs == "" || our == "" {
		t.Fatal("no link-local addresses")
	}
	cgroup, run := e.newRun(t, "run_a", false)
	e.allow(t, run, ports(1, 65535), "2000::/3")
	for _, args := range [][]string{
		{"dial", "tcp6", "[fe80::2%veth0]:" + portOf(tcp)}, {"dial", "udp6", "[fe80::2%veth0]:" + portOf(udp)},
		{"sendto", "udp6", "[fe80::2%veth0]:" + portOf(udp)},
	} {
		if got := in(t, "", args[0], args[1:]...); !strings.HasPrefix(got, "ok") {
			t.Errorf("%v, control: %q", args, got)
		}
		before := e.refused(t, run, "link-local")
		if got := in(t, cgroup, args[0], args[1:]...); got != "EPERM" || e.refused(t, run, "link-local") != before+1 {
			t.Errorf("%v: %q", args, got)
		}
	}
	if tcp.settle(); tcp.arrived.Load() != 1 || udp.arrived.Load() != 2 {
		t.Errorf("%d and %d arrived, want the controls", tcp.arrived.Load(), udp.arrived.Load())
	}

	events := e.collect(t)
	control, server := start(t, "", "echo", "tcp6", "[::]:0"), start(t, cgroup, "echo", "tcp6", "[::]:0")
	if got := o.says(t, "tcp6", "fe80::2%veth1", "[fe80::1%veth1]:"+portText(control.port(t)), "word"); got != "word" {
		t.Errorf("inbound, control: %q", got)
	}
	port := server.port(t)
	e.grant(t, run, ports(1, 65535), "::/0")
	if got := o.says(t, "tcp6", "fe80::2%veth1", "[fe80::1%veth1]:"+portText(port), "word"); got != "no connection" {
		t.Errorf("inbound: %q", got)
	}
	expectTurnedAway(t, events, run, "link-local", "fe80::2", port)
}

// TestMissingLoopbackIsNamed: what can't be redirected because the host lacks the
// address is refused, with a reason of its own; the other family works.
func TestMissingLoopbackIsNamed(t *testing.T) {
	e := newTestEnv(t)
	visitors, doors := e.openDoors(t)
	cgroup, run := e.newRun(t, "run_a", false)
	events := e.collect(t)
	v4, v6 := netip.MustParseAddr("198.18.0.7"), netip.MustParseAddr("fd56:6172:7665:6c00::7")
	for _, a := range []netip.Addr{v4, v6} {
		if err := e.AllowName(run, a, tcp443); err != nil {
			t.Fatal(err)
		}
	}
	dials := map[string][]string{
		"tcp4":   {"dial", "tcp4", "198.18.0.7:443"},
		"mapped": {"dial", "tcp6", "[::ffff:198.18.0.7]:443"},
		"tcp6":   {"dial", "tcp6", "[fd56:6172:7665:6c00::7]:443"},
		"dns4":   {"query", "unconnected", "192.0.2.53:53"},
		"dns6":   {"query", "unconnected", "[2001:db8::53]:53"},
	}
	for _, tt := range []struct {
		name    string
		doors   Doors
		missing []string
	}{
		{"both", doors, nil},
		{"no ::1", Doors{TCP4: doors.TCP4, UDP4: doors.UDP4}, []string{"tcp6", "dns6"}},
		{"no 127.0.0.1", Doors{TCP6: doors.TCP6, UDP6: doors.UDP6}, []string{"tcp4", "mapped", "dns4"}},
	} {
		if err := e.SetDoors(tt.doors); err != nil {
			t.Fatal(err)
		}
		for name, args := range dials {
			want := true
			for _, m := range tt.missing {
				want = want && m != name
			}
			got := in(t, cgroup, args[0], args[1:]...)
			if want != (got != "EPERM") {
				t.Errorf("%s, %s: %q", tt.name, name, got)
			}
			if !want {
				expectEvent(t, events, func(ev Event) bool { return ev.Kind == EventDenied && ev.Reason == "no-loopback" && ev.CgroupID == run })
			} else if strings.HasPrefix(name, "dns") && !strings.Contains(got, " from ") {
				t.Errorf("%s, %s: %q", tt.name, name, got)
			}
			for len(visitors) > 0 {
				<-visitors
			}
		}
	}
}

// TestMissingDoorsStayMissing: what a run's network namespace lacks does not come back
// when the run's mode is changed, or its rules are taken away.
func TestMissingDoorsStayMissing(t *testing.T) {
	for _, tt := range []struct {
		name, works, fails string
		lacks4, lacks6     bool
	}{
		{"no ::1", "192.0.2.53:53", "[2001:db8::53]:53", false, true},
		{"no 127.0.0.1", "[2001:db8::53]:53", "192.0.2.53:53", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newTestEnv(t)
			e.openDoors(t)
			cgroup, run := e.newRun(t, "run_a", false)
			events := e.collect(t)
			ask := func(to string) string { return in(t, cgroup, "query", "unconnected", to) }
			for _, to := range []string{tt.works, tt.fails} {
				if got := ask(to); !strings.Contains(got, " from ") {
					t.Fatalf("control: %s: %q", to, got)
				}
			}
			steps := []func() error{
				func() error { return e.WithoutDoors(run, tt.lacks4, tt.lacks6) },
				func() error { return e.AddRun(run, true) },
				func() error { return e.AddRun(run, false) },
				func() error { return e.Revoke(run) },
			}
			kinds := []EventKind{EventDenied, EventWouldDeny, EventDenied, EventDenied}
			for i, step := range steps {
				if err := step(); err != nil {
					t.Fatal(err)
				}
				if got := ask(tt.works); !strings.Contains(got, " from ") {
					t.Errorf("step %d: %s: %q", i, tt.works, got)
				}
				// In observe it happens, as far as it can: nobody is asked at that address.
				if got := ask(tt.fails); strings.Contains(got, " from ") {
					t.Errorf("step %d: %s: %q", i, tt.fails, got)
				}
				// A question that is refused doesn't spoil the answer to the one that is not.
				for _, order := range [][]string{{tt.works, tt.fails}, {tt.fails, tt.works}} {
					if got := in(t, cgroup, "askall", order...); got != runWord(run)+" from "+tt.works {
						t.Errorf("step %d: %v: %q", i, order, got)
					}
				}
				expectEvent(t, events, func(ev Event) bool { return ev.Kind == kinds[i] && ev.Reason == "no-loopback" && ev.CgroupID == run })
			}
		})
	}
}

// TestRedirectFromAnyAddressOfTheHost: a program that binds one of the host's
// addresses first, such as a temporary one (RFC 8981), reaches the door all the same.
func TestRedirectFromAnyAddressOfTheHost(t *testing.T) {
	e := newTestEnv(t)
	visitors, _ := e.openDoors(t)
	cgroup, run := e.newRun(t, "run_a", false)
	ip(t, "addr add 2001:db8::aaaa/64 dev veth0 nodad valid_lft 3600 preferred_lft 1800")
	to := netip.MustParseAddrPort("[fd56:6172:7665:6c00::7]:443")
	if err := e.AllowName(run, to.Addr(), tcp443); err != nil {
		t.Fatal(err)
	}
	if got := in(t, cgroup, "dialfrom", "tcp6", "[2001:db8::aaaa]:0", to.String()); !strings.HasPrefix(got, "ok") {
		t.Fatalf("got %q", got)
	}
	if v := next(t, visitors); v.err != nil || v.run != run || v.dst != to {
		t.Errorf("the door was told %+v", v)
	}
	r := receive(t, "tcp6", "[2001:db8::1]:0")
	e.allow(t, run, ports(1, 65535), "2001:db8::/64")
	if got := in(t, cgroup, "dialfrom", "tcp6", "[2001:db8::aaaa]:0", r.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("directly: %q", got)
	}
}
