package kernel

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// memory is what all maps have, those of the rules in others too, as the kernel says
// (memlock in /proc/PID/fdinfo, proc(5)).
func (e *testEnv) memory(t testing.TB) (total uint64) {
	t.Helper()
	add := func(m *ebpf.Map) {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.Memlock()
		if !ok {
			t.Skip("the kernel does not say how much memory a map has")
		}
		total += n
	}
	for _, m := range e.objects.maps {
		add(m)
	}
	for _, name := range outerMaps() {
		for index := range e.sets.byIndex {
			var id ebpf.MapID
			if e.objects.maps[name].Lookup(index, &id) != nil {
				continue
			}
			inner, err := ebpf.NewMapFromID(id)
			if err != nil {
				t.Fatal(err)
			}
			add(inner)
			inner.Close()
		}
	}
	return total
}

// hostRules is a rule set of so many host routes, half of them IPv6.
func hostRules(count int) *ruleset.RuleSet {
	rs := &ruleset.RuleSet{ID: fmt.Sprint(count), PortSets: [][]ruleset.PortRange{tcpPort(443)}}
	for i := range count / 2 {
		a := 0x0a000000 + uint32(i)*97
		rs.Entries = append(rs.Entries,
			ruleset.Entry{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}), 32)},
			ruleset.Entry{Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 12: byte(a >> 24), 13: byte(a >> 16), 14: byte(a >> 8), 15: byte(a)}), 128)})
	}
	return rs
}

// TestMemoryIsOfRuleSetsNotOfRuns: a hundred runs of one agent have the rules once.
func TestMemoryIsOfRuleSetsNotOfRuns(t *testing.T) {
	e := newTestEnv(t)
	empty := e.memory(t)
	for _, rules := range []int{10, 1000, 100_000} {
		if err := e.LoadRuleSet(hostRules(rules)); err != nil {
			t.Fatal(err)
		}
		now := e.memory(t)
		t.Logf("%6d rules: %9d bytes, %d a rule", rules, now-empty, (now-empty)/uint64(rules))
		empty = now
	}
	ids := e.manyRuns(t, 100)
	was, before := 0, e.memory(t)
	for _, n := range []int{1, 10, 100} {
		for ; was < n; was++ {
			if err := e.UseRuleSet(ids[was], "100000"); err != nil {
				t.Fatal(err)
			}
		}
		if now := e.memory(t); now != before {
			t.Errorf("%d runs with a rule set have %d bytes more than without", n, now-before)
		}
	}
	perRun := (before - empty) / uint64(len(ids))
	t.Logf("a run: %d bytes", perRun)
	if perRun > 50<<10 {
		t.Errorf("a run has %d bytes in the kernel's maps", perRun)
	}
	addr := netip.MustParseAddr("198.18.0.1")
	if err := e.AllowName(ids[0], addr, tcpPort(443)); err != nil {
		t.Fatal(err)
	}
	t.Logf("a port of a name: %d bytes", e.memory(t)-before)
}
