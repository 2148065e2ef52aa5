package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/varvel/varvel/internal/ruleset"
)

func tcpPort(n uint16) []ruleset.PortRange {
	return []ruleset.PortRange{{First: n, Last: n, Protocol: ruleset.TCP}}
}

// fillNames allows a run names until it is refused, and returns how many and why.
func (e *testEnv) fillNames(run uint64, most int) (int, error) {
	addr := netip.MustParseAddr("198.18.0.1")
	for n := 0; n < most; n += 64 {
		if err := e.AllowName(run, addr, []ruleset.PortRange{{First: 1, Last: 64, Protocol: ruleset.TCP}}); err != nil {
			return n, err
		}
		addr = addr.Next()
	}
	return most, nil
}

// TestNamesHaveShares: a run that asks for too many is refused, others go on; only all
// together can fill the table, which is found out, and is over when one has gone.
func TestNamesHaveShares(t *testing.T) {
	e := newTestEnv(t)
	size := int(e.objects.maps["names"].MaxEntries())
	ids := e.manyRuns(t, 9)
	n, err := e.fillNames(ids[0], size)
	if !errors.Is(err, ErrShare) || n != size/8 {
		t.Fatalf("a run has got %d of %d names: %v", n, size, err)
	}
	first := netip.MustParseAddr("198.18.0.1")
	if err := e.AllowName(ids[0], first, tcpPort(1)); err != nil {
		t.Errorf("a name that the run has: %v", err)
	}
	for _, run := range ids[1:8] {
		if _, err := e.fillNames(run, size/8); err != nil {
			t.Fatalf("another run, beside one that has its share: %v", err)
		}
	}
	if full, err := e.FullTables(); err != nil || !slices.Equal(full, []string{"names"}) {
		t.Errorf("full are %q, %v", full, err)
	}
	if err := e.AllowName(ids[8], first, tcpPort(1)); !errors.Is(err, ErrFull) {
		t.Errorf("a name beyond the table: %v", err)
	}
	if err := e.PruneNames(ids[0], func(dst netip.AddrPort) bool { return dst.Addr() != first }); err != nil {
		t.Fatal(err)
	}
	if full, err := e.FullTables(); err != nil || len(full) != 0 {
		t.Errorf("full are %q, %v", full, err)
	}
	if err := e.AllowName(ids[8], first, tcpPort(1)); err != nil {
		t.Errorf("a name, after there is room: %v", err)
	}
	if err := e.AllowName(ids[0], first, tcpPort(2)); err != nil {
		t.Errorf("a name of a run that has given some back: %v", err)
	}
}

// TestRedirectsHaveShares: a run with as many redirected sockets as it may have is
// refused, with the reason; another is not; what is closed is given back, exactly.
func TestRedirectsHaveShares(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	cgroupB, other := e.newRun(t, "run_b", false)
	e.openDoors(t)
	name := netip.MustParseAddr("198.18.0.7")
	for _, r := range []uint64{run, other} {
		if err := e.AllowName(r, name, tcp443); err != nil {
			t.Fatal(err)
		}
	}
	limit := func(n int32) {
		t.Helper()
		if err := e.objects.maps["shares"].Put(run, abiVarvelShare{Limit: n}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(want int) {
		t.Helper()
		waitFor(t, fmt.Sprintf("a count of %d", want), func() bool { n, _, err := e.Redirected(run); return err == nil && n == want })
	}
	if _, of, err := e.Redirected(run); err != nil || of != int(e.objects.maps["redirects"].MaxEntries())/8 {
		t.Errorf("a run may have %d redirected sockets, %v", of, err)
	}
	limit(3)
	for _, act := range [][]string{{"tcp4", "198.18.0.7:443", "5"}, {"udp4", "203.0.113.9:53", "5"}} {
		if got := in(t, cgroup, "hoard", act...); got != "3 ok, then EPERM" {
			t.Errorf("%v with a share of 3: %q", act, got)
		}
		count(0) // all were closed
		if got := in(t, cgroupB, "hoard", act...); got != "5 ok" {
			t.Errorf("%v in another run: %q", act, got)
		}
	}
	if c, err := e.Counters(run); err != nil || c.Refused["share"] != 2 {
		t.Errorf("counters %+v, %v", c, err)
	}
	if got := in(t, cgroup, "hoard", "tcp4", "198.18.0.7:443", "3"); got != "3 ok" {
		t.Errorf("after all were closed: %q", got)
	}
	// Connections that fail, and sockets that connect again, are counted once.
	limit(1)
	for range 5 {
		if got := in(t, cgroup, "dial", "tcp4", "198.18.0.7:443"); got != "ok 198.18.0.7:443" {
			t.Errorf("one after the other: %q", got)
		}
	}
	if err := e.SetDoors(Doors{TCP4: 1}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if got := in(t, cgroup, "dial", "tcp4", "198.18.0.7:443"); got != "ECONNREFUSED" {
			t.Errorf("to a door that is shut: %q", got)
		}
	}
	count(0)
}
