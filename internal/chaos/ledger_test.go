package chaos

import (
	"net/netip"
	"strings"
	"testing"
)

func TestLedger(t *testing.T) {
	node, other := v4(hostNode), v6(hostOutsiders)
	at := func(host byte, p uint16) netip.AddrPort { return netip.AddrPortFrom(v4(host), p) }
	sent := func(agent, flow string) string { return attempt{"r1", agent, flow, 7}.payload() }
	tests := []struct {
		name string
		a    arrival
		leak string // part of why; "": it is none
	}{
		{"allowed", arrival{"tcp", node, at(hostListed, port), sent(alpha, "tcp4")}, ""},
		{"a connection says nothing", arrival{"tcp", node, at(hostListed, port), ""}, ""},
		{"by name", arrival{"tcp", node, at(hostBeta, port), sent(beta, flowName)}, ""},
		{"an outsider", arrival{"udp", other, at(hostUnlisted, port), sent(alpha, "udp4-unlisted")}, ""},
		{"the daemon asks", arrival{"dns", node, at(hostNames, 53), nameOf(beta)}, ""},
		{"unlisted", arrival{"udp", node, at(hostUnlisted, port), sent(alpha, "udp4")}, "address is unlisted"},
		{"a mere connection to what is unlisted", arrival{"tcp", node, at(hostUnlisted, port), ""}, "address is unlisted"},
		{"another port", arrival{"tcp", node, at(hostListed, otherPort), ""}, "port is unlisted"},
		{"a denied attempt where others may go", arrival{"tcp", node, at(hostAlpha, port), sent(alpha, "named-address")}, "to be refused"},
		{"another's name", arrival{"tcp", node, at(hostBeta, port), sent(alpha, flowName)}, "leads elsewhere"},
		{"an unknown flow", arrival{"tcp", node, at(hostListed, port), sent(alpha, "novel")}, "to be refused"},
		{"garbage", arrival{"udp", node, at(hostListed, port), "hello"}, "nobody sends"},
		{"an unlisted question", arrival{"dns", node, at(hostNames, 53), "n1.alpha.r1.exfil.test"}, "name is unlisted"},
		{"from nowhere", arrival{"tcp", netip.Addr{}, at(hostUnlisted, port), ""}, "address is unlisted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var log strings.Builder
			l := newLedger(&log)
			l.add(test.a)
			got, err := l.report(order{Of: []string{"r1"}})
			if err != nil {
				t.Fatal(err)
			}
			if leaked := got.Leaked > 0; leaked != (test.leak != "") || leaked != strings.Contains(log.String(), `"why"`) {
				t.Fatalf("got %+v and the log %q, want a leak: %q", got, log.String(), test.leak)
			}
			if test.leak != "" && !strings.Contains(got.First[0].Why, test.leak) {
				t.Errorf("got %v, want %q", got.First[0], test.leak)
			}
		})
	}
}

func TestLedgerCounts(t *testing.T) {
	l := newLedger(&strings.Builder{})
	to := netip.AddrPortFrom(v6(hostListed), port)
	for range 3 {
		l.add(arrival{"udp", v6(hostNode), to, attempt{"r2", beta, "udp6", 1}.payload()})
	}
	l.add(arrival{"udp", v6(hostOutsiders), to, attempt{outsiders, alpha, "udp6", 1}.payload()})
	got, err := l.report(order{Of: []string{"r2", "r3"}})
	if err != nil || got.Allowed["udp6"] != 3 || got.From["r2"]["udp6"] != 3 || got.From["r3"]["udp6"] != 0 || got.Controls["udp6"] != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestPayload(t *testing.T) {
	want := attempt{"r12", beta, "tcp-mapped-unlisted", 1 << 40}
	if got, ok := readAttempt(want.payload()); !ok || got != want {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, bad := range []string{"", "chaos", "chaos r1 alpha tcp4", "CHAOS r1 alpha tcp4 1\n", "chaos r1 alpha tcp4 -1\n"} {
		if got, ok := readAttempt(bad); ok {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

// TestFlows: every denied flow has a receiver that knows it as one, and direct
// flows are allowed.
func TestFlows(t *testing.T) {
	names := map[string]bool{}
	for _, f := range flows() {
		if names[f.name] {
			t.Errorf("%s is there twice", f.name)
		}
		names[f.name] = true
		if f.direct && !f.allowed {
			t.Errorf("%s is direct and not allowed", f.name)
		}
	}
	for _, name := range append(directFlows(), namedFlows()...) {
		if !names[name] {
			t.Errorf("%s is waited for, and nobody sends it", name)
		}
	}
}
