package bench

import (
	"net/netip"
	"testing"

	"github.com/varvel/varvel/internal/ruleset"
)

func TestMix(t *testing.T) {
	for _, n := range []int{10, 2000} {
		m, err := mix(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(m.rules.Entries); got != n {
			t.Errorf("%d rules, want %d", got, n)
		}
		hosts, lengths := count(m.rules)
		if hosts < n/2 || hosts > n/2+n/20 {
			t.Errorf("%d host routes of %d rules, want half", hosts, n)
		}
		if n >= 100 && len(lengths) < 16 {
			t.Errorf("%d prefix lengths, want at least 16", len(lengths))
		}
	}
}

func count(rs *ruleset.RuleSet) (hosts int, lengths map[int]bool) {
	lengths = map[int]bool{}
	for _, e := range rs.Entries {
		if e.Prefix.IsSingleIP() {
			hosts++
		} else {
			lengths[e.Prefix.Bits()] = true
		}
	}
	return hosts, lengths
}

// Every destination is allowed, the exact ones by a rule for themselves, the
// others by wider rules only.
func TestMixDestinations(t *testing.T) {
	m, err := mix(2000)
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[netip.Addr]bool{}
	for _, e := range m.rules.Entries {
		hosts[e.Prefix.Addr()] = hosts[e.Prefix.Addr()] || e.Prefix.IsSingleIP()
	}
	for i := 0; i < listLength; i += 100 {
		exact, prefix := m.exact[i], m.prefix[i]
		if !hosts[exact] || hosts[prefix] {
			t.Fatalf("%s in a host route: %v; %s: %v", exact, hosts[exact], prefix, hosts[prefix])
		}
		for _, a := range []netip.Addr{exact, prefix} {
			if !m.rules.Judge(a, targetPort, ruleset.UDP) || !m.rules.Judge(a, targetPort, ruleset.TCP) {
				t.Fatalf("%s is not allowed", a)
			}
		}
	}
}

// The same figures are measured with the same rules.
func TestMixIsTheSameEachTime(t *testing.T) {
	a, err := mix(500)
	if err != nil {
		t.Fatal(err)
	}
	b, err := mix(500)
	if err != nil {
		t.Fatal(err)
	}
	if a.rules.ID != b.rules.ID || a.prefix[listLength-1] != b.prefix[listLength-1] {
		t.Error("two mixtures of one size differ")
	}
}
