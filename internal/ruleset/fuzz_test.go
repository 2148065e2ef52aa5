package ruleset

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// FuzzCompile reads rules from bytes, and compares the compiled judgement with
// the rules at the edges of each.
func FuzzCompile(f *testing.F) {
	f.Add([]byte{4, 8, 10, 0, 0, 0, 1, 1, 2, 4, 16, 10, 1, 0, 0, 0, 3, 1})
	f.Add([]byte{6, 0, 0, 0, 0, 0, 9, 0, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		rules := decodeRules(data)
		rs, err := Compile(rules)
		if err != nil {
			return
		}
		checkShape(t, rs)
		for _, r := range rules {
			for _, addr := range []netip.Addr{r.Prefix.Addr(), r.Prefix.Masked().Addr(), r.Prefix.Masked().Addr().Prev(), r.Prefix.Addr().Next()} {
				for _, p := range append(r.Ports, PortRange{7, 7, TCP}) {
					for _, port := range []uint16{p.First - 1, p.First, p.Last, p.Last + 1} {
						if got, want := rs.Judge(addr, port, p.Protocol), naive(rules, addr, port, p.Protocol); got != want {
							t.Fatalf("Judge(%s, %d, %d) = %v, want %v; rules %v", addr, port, p.Protocol, got, want, rules)
						}
					}
				}
			}
		}
	})
}

// decodeRules takes nine bytes for a rule: family, length, four of the address,
// first port, number of ports, protocol.
func decodeRules(data []byte) []Rule {
	var rules []Rule
	for ; len(data) >= 9 && len(rules) < 64; data = data[9:] {
		addr := netip.AddrFrom4([4]byte(data[2:6]))
		switch data[0] % 3 {
		case 1:
			addr = netip.AddrFrom16(addr.As16()) // IPv4-mapped
		case 2:
			var b [16]byte
			copy(b[:], data[2:6])
			addr = netip.AddrFrom16(b)
		}
		rule := Rule{Prefix: netip.PrefixFrom(addr, int(data[1])%(addr.BitLen()+1))}
		if data[8] > 0 {
			first := binary.BigEndian.Uint16([]byte{data[8] & 0x80, data[6]})
			rule.Ports = []PortRange{{first, first + uint16(data[7]%8), []Protocol{TCP, UDP}[data[8]%2]}}
		}
		rules = append(rules, rule)
	}
	return rules
}
