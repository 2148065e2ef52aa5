package kernel

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
)

// outside is another machine: at the other end of the wire, with the addresses
// 192.0.2.2 and .3, and 2001:db8::2 and ::3.
type outside struct{ ns *testutil.NetNS }

func newOutside(t testing.TB) *outside {
	t.Helper()
	o := &outside{testutil.NewNetNS(t)}
	ip(t, "link set veth1 netns "+o.ns.Path())
	err := o.ns.Do(func() error {
		for _, args := range []string{
			"link set veth1 up", "addr add 192.0.2.2/24 dev veth1", "addr add 192.0.2.3/24 dev veth1",
			"addr add 2001:db8::2/64 dev veth1 nodad", "addr add 2001:db8::3/64 dev veth1 nodad",
		} {
			if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", args, err, out)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func ip(t testing.TB, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// dial connects from one of the outside's addresses. Whoever drops it has ctx end
// it.
func (o *outside) dial(ctx context.Context, network, from, to string) (c net.Conn, err error) {
	local := net.JoinHostPort(from, "0")
	d := net.Dialer{}
	if network[:3] == "udp" {
		d.LocalAddr, err = net.ResolveUDPAddr(network, local)
	} else {
		d.LocalAddr, err = net.ResolveTCPAddr(network, local)
	}
	if err != nil {
		return nil, err
	}
	err = o.ns.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, to)
		return err
	})
	return c, err
}

// trial is how long a test waits for what is not to happen, and how often a
// datagram is sent again for what is.
const trial = 300 * time.Millisecond

// says connects, says a word and returns the answer, or what happened instead.
func (o *outside) says(t testing.TB, network, from, to, word string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*trial)
	defer cancel()
	c, err := o.dial(ctx, network, from, to)
	if err != nil {
		return "no connection"
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * trial))
	if _, err := io.WriteString(c, word); err != nil {
		return "no write"
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return "no answer"
	}
	return string(buf[:n])
}

// sends sends one datagram.
func (o *outside) sends(t testing.TB, network, from, to, word string) {
	t.Helper()
	c, err := o.dial(t.Context(), network, from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
}

// grant lets peers reach ports of a run over TCP and UDP.
func (e *testEnv) grant(t testing.TB, run uint64, set []ruleset.PortRange, peers ...string) {
	t.Helper()
	var rules []ruleset.Rule
	for _, p := range peers {
		rules = append(rules, ruleset.Rule{Prefix: netip.MustParsePrefix(p), Ports: set})
	}
	rs, err := ruleset.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.UseListen(run, rs); err != nil {
		t.Fatal(err)
	}
}

func (e *testEnv) refused(t testing.TB, run uint64, reason string) uint64 {
	t.Helper()
	c, err := e.Counters(run)
	if err != nil {
		t.Fatal(err)
	}
	return c.Refused[reason]
}

// expectTurnedAway waits for the event of a peer that was refused.
func expectTurnedAway(t testing.TB, events <-chan Event, run uint64, reason, peer string, port uint16) {
	t.Helper()
	expectEvent(t, events, func(ev Event) bool {
		return ev.Kind == EventDenied && ev.Hook == "ingress" && ev.CgroupID == run && ev.Reason == reason &&
			ev.Address.Addr() == netip.MustParseAddr(peer) && ev.Address.Port() != 0 && ev.Local == port
	})
}
