package ruleset

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func rule(prefix string, ports ...PortRange) Rule {
	return Rule{Prefix: netip.MustParsePrefix(prefix), Ports: ports}
}

func tcp(first, last uint16) PortRange { return PortRange{first, last, TCP} }
func udp(first, last uint16) PortRange { return PortRange{first, last, UDP} }

// listing is a rule set in a form that reads well in a diff.
func listing(rs *RuleSet) map[string][]PortRange {
	m := map[string][]PortRange{}
	for _, e := range rs.Entries {
		m[e.Prefix.String()] = rs.PortSets[e.PortSet]
	}
	return m
}

func TestCompile(t *testing.T) {
	every := []PortRange{tcp(0, 65535), udp(0, 65535)}
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  map[string][]PortRange
	}{
		{"nothing", nil, map[string][]PortRange{}},
		{"no ports means all", []Rule{rule("192.0.2.1/32")}, map[string][]PortRange{"192.0.2.1/32": every}},
		{"masked", []Rule{rule("192.0.2.77/24", tcp(1, 1))}, map[string][]PortRange{"192.0.2.0/24": {tcp(1, 1)}}},
		{"mapped is IPv4", []Rule{rule("::ffff:192.0.2.77/120", tcp(1, 1))}, map[string][]PortRange{"192.0.2.0/24": {tcp(1, 1)}}},
		{"all mapped is all IPv4", []Rule{rule("::ffff:0.0.0.0/96", tcp(1, 1))}, map[string][]PortRange{"0.0.0.0/0": {tcp(1, 1)}}},
		{"wider than mapped is IPv6", []Rule{rule("::ffff:0.0.0.0/95", tcp(1, 1))}, map[string][]PortRange{"::fffe:0:0/95": {tcp(1, 1)}}},
		{"equal prefixes are one", []Rule{rule("192.0.2.0/24", tcp(1, 1)), rule("192.0.2.0/24", udp(1, 1))},
			map[string][]PortRange{"192.0.2.0/24": {tcp(1, 1), udp(1, 1)}}},
		{"narrow holds wide", []Rule{rule("192.0.2.1/32", tcp(443, 443)), rule("192.0.0.0/16", tcp(80, 80)), rule("0.0.0.0/0", udp(53, 53))},
			map[string][]PortRange{
				"0.0.0.0/0":    {udp(53, 53)},
				"192.0.0.0/16": {tcp(80, 80), udp(53, 53)},
				"192.0.2.1/32": {tcp(80, 80), tcp(443, 443), udp(53, 53)},
			}},
		{"redundant is dropped", []Rule{rule("192.0.0.0/16", tcp(1, 100)), rule("192.0.2.0/24", tcp(5, 7)), rule("192.0.2.1/32", tcp(200, 200))},
			map[string][]PortRange{"192.0.0.0/16": {tcp(1, 100)}, "192.0.2.1/32": {tcp(1, 100), tcp(200, 200)}}},
		{"touching ranges are one", []Rule{rule("::/0", tcp(3, 4), tcp(1, 2), tcp(6, 6), tcp(65535, 65535))},
			map[string][]PortRange{"::/0": {tcp(1, 4), tcp(6, 6), tcp(65535, 65535)}}},
		{"protocols do not touch", []Rule{rule("::/0", tcp(0, 65535), udp(0, 0))},
			map[string][]PortRange{"::/0": {tcp(0, 65535), udp(0, 0)}}},
		{"families do not cover each other", []Rule{rule("::/0", tcp(1, 1)), rule("0.0.0.0/0", tcp(2, 2))},
			map[string][]PortRange{"::/0": {tcp(1, 1)}, "0.0.0.0/0": {tcp(2, 2)}}},
		{"neighbour is not covered", []Rule{rule("192.0.2.0/25", tcp(1, 1)), rule("192.0.2.128/25", tcp(2, 2))},
			map[string][]PortRange{"192.0.2.0/25": {tcp(1, 1)}, "192.0.2.128/25": {tcp(2, 2)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs, err := Compile(tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, listing(rs), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	var many, few []PortRange
	for i := range MaxRanges + 1 {
		many = append(many, tcp(uint16(2*i+1), uint16(2*i+1)))
	}
	few = many[:MaxRanges]
	at := func(source string, r Rule) Rule { r.Source = source; return r }
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  string
	}{
		{"as many ranges as allowed", []Rule{rule("::/0", few...)}, ""},
		{"too many ranges", []Rule{at("a.yaml:7", rule("::/0", many...))}, "a.yaml:7: ::/0: it has 17 port ranges"},
		{"too many together", []Rule{at("a.yaml:1", rule("10.0.0.0/8", few...)), at("a.yaml:9", rule("10.1.0.0/16", udp(1, 1)))},
			"a.yaml:9: 10.1.0.0/16: together with the rules that cover it, it has 17 port ranges"},
		{"not covered, so not together", []Rule{rule("10.0.0.0/8", few...), rule("11.1.0.0/16", udp(1, 1))}, ""},
		{"backwards", []Rule{at("a.yaml:3", rule("::/0", tcp(9, 8)))}, "a.yaml:3: ::/0: the port range 9-8 ends before"},
		{"protocol", []Rule{rule("::/0", PortRange{1, 1, 132})}, "rule: ::/0: protocol number 132"},
		{"no prefix", []Rule{{Source: "a.yaml:4"}}, "a.yaml:4: invalid Prefix: the prefix is not valid"},
		{"each is named", []Rule{at("a.yaml:3", rule("::/0", tcp(9, 8))), at("a.yaml:4", rule("::/0", tcp(9, 8)))}, "a.yaml:4: ::/0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rs, err := Compile(tt.rules)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var re *RuleError
			if rs != nil || !errors.As(err, &re) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want a RuleError with %q", rs, err, tt.want)
			}
		})
	}
}

func TestCompileNamesFewErrors(t *testing.T) {
	bad := slices.Repeat([]Rule{{Source: "x"}}, 1000)
	_, err := Compile(bad)
	if n := strings.Count(err.Error(), "\n") + 1; n != maxErrors {
		t.Errorf("%d errors, want %d", n, maxErrors)
	}
}

func TestIDIsOfTheContent(t *testing.T) {
	a, b := rule("192.0.2.0/24", tcp(1, 1)), rule("2001:db8::/32", udp(2, 2))
	id := func(rules ...Rule) string {
		rs, err := Compile(rules)
		if err != nil {
			t.Fatal(err)
		}
		return rs.ID
	}
	if id(a, b) != id(b, a, a, rule("192.0.2.4/32", tcp(1, 1))) {
		t.Error("equal content has different ids")
	}
	for _, other := range [][]Rule{nil, {a}, {b}, {a, rule("2001:db8::/33", udp(2, 2))}, {a, rule("2001:db8::/32", udp(2, 3))}} {
		if id(a, b) == id(other...) {
			t.Errorf("different content %v has the same id", other)
		}
	}
}

// naive is what a rule set means: any rule that matches.
func naive(rules []Rule, addr netip.Addr, port uint16, proto Protocol) bool {
	addr = addr.Unmap()
	return slices.ContainsFunc(rules, func(r Rule) bool {
		p, err := Normalise(r.Prefix)
		if err != nil {
			return false
		}
		if len(r.Ports) == 0 {
			return p.Contains(addr)
		}
		return p.Contains(addr) && AllowsPort(r.Ports, port, proto)
	})
}

// The universe of the random rules is small, so that they meet: few leading
// bits, few ports.
func randomAddr(r *rand.Rand) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.UintN(2)) * 0x81
	}
	switch r.UintN(3) {
	case 0:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 1:
		return netip.AddrFrom16(netip.AddrFrom4([4]byte(b[:4])).As16())
	}
	return netip.AddrFrom16(b)
}

func randomRule(r *rand.Rand) Rule {
	addr := randomAddr(r)
	rule := Rule{Prefix: netip.PrefixFrom(addr, r.IntN(addr.BitLen()+1))}
	for range r.UintN(4) {
		first := uint16(r.UintN(12))
		rule.Ports = append(rule.Ports, PortRange{first, first + uint16(r.UintN(4)), []Protocol{TCP, UDP}[r.UintN(2)]})
	}
	return rule
}

func TestCompiledJudgesLikeTheRules(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var rules []Rule
		for range r.UintN(40) {
			rules = append(rules, randomRule(r))
		}
		rs, err := Compile(rules)
		if err != nil {
			t.Fatal(err)
		}
		for range 500 {
			addr, port, proto := randomAddr(r), uint16(r.UintN(18)), []Protocol{TCP, UDP}[r.UintN(2)]
			if got, want := rs.Judge(addr, port, proto), naive(rules, addr, port, proto); got != want {
				t.Fatalf("seed %d: Judge(%s, %d, %d) = %v, want %v\nrules: %v\nrule set: %v", seed, addr, port, proto, got, want, rules, listing(rs))
			}
		}
		checkShape(t, rs)
	}
}

// checkShape tests what the kernel relies on besides the judgement.
func checkShape(t *testing.T, rs *RuleSet) {
	t.Helper()
	used := make([]bool, len(rs.PortSets))
	for i, e := range rs.Entries {
		used[e.PortSet] = true
		if e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Is4In6() && e.Prefix.Bits() >= 96 {
			t.Fatalf("entry %v is not normalised", e.Prefix)
		}
		if i > 0 && comparePrefixes(rs.Entries[i-1].Prefix, e.Prefix) >= 0 {
			t.Fatalf("entry %v is out of order", e.Prefix)
		}
	}
	if slices.Contains(used, false) {
		t.Fatal("a port set is not used")
	}
	for _, set := range rs.PortSets {
		if len(set) == 0 || len(set) > MaxRanges || !isMerged(set) {
			t.Fatalf("port set %v", set)
		}
	}
}

func TestJudgeOddAddresses(t *testing.T) {
	rs, err := Compile([]Rule{rule("0.0.0.0/0"), rule("fe80::/10")})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[netip.Addr]bool{
		{}:                                     false,
		netip.MustParseAddr("fe80::1%eth0"):    true,
		netip.MustParseAddr("::ffff:10.0.0.1"): true,
		netip.MustParseAddr("2001:db8::1"):     false,
	} {
		if got := rs.Judge(addr, 1, TCP); got != want {
			t.Errorf("Judge(%s) = %v, want %v", addr, got, want)
		}
	}
	if (&RuleSet{}).Judge(netip.MustParseAddr("192.0.2.1"), 1, TCP) {
		t.Error("an empty rule set allows")
	}
}

// mixedRules are n rules as they are found in practice: half hosts, half
// prefixes of many lengths, a dozen port sets, both families.
func mixedRules(n int) []Rule {
	r := rand.New(rand.NewPCG(7, 7))
	rules := make([]Rule, n)
	for i := range rules {
		var b [16]byte
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		addr := netip.AddrFrom4([4]byte(b[:4]))
		if i%3 == 0 {
			b[0] = 0x20
			addr = netip.AddrFrom16(b)
		}
		bits := addr.BitLen()
		if i%2 == 0 {
			bits -= 1 + r.IntN(20)
		}
		port := uint16(440 + r.UintN(12))
		rules[i] = Rule{Prefix: netip.PrefixFrom(addr, bits), Ports: []PortRange{tcp(port, port)}, Source: fmt.Sprint(i)}
	}
	return rules
}

func TestCompileAMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	rules := mixedRules(1_000_000)
	rs, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1, 2, 3, 499_999, 999_999} {
		if r := rules[i]; !rs.Judge(r.Prefix.Addr(), r.Ports[0].First, TCP) {
			t.Errorf("rule %d does not hold", i)
		}
	}
}

func BenchmarkCompile100k(b *testing.B) {
	rules := mixedRules(100_000)
	for b.Loop() {
		if _, err := Compile(rules); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile1M(b *testing.B) {
	rules := mixedRules(1_000_000)
	for b.Loop() {
		if _, err := Compile(rules); err != nil {
			b.Fatal(err)
		}
	}
}
