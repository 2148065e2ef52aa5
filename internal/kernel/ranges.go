package kernel

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/varvel/varvel/internal/ruleset"
)

// span is an IPv4 prefix as the addresses that it covers, both included, and the
// number of its port set.
type span struct {
	first, last uint32
	set         uint32
}

func (s span) isHost() bool { return s.first == s.last }

// spans4 returns the IPv4 prefixes of a rule set by address, outer ones first.
func spans4(rs *ruleset.RuleSet, numbers []uint32) ([]span, error) {
	var spans []span
	for _, e := range rs.Entries {
		if !e.Prefix.Addr().Is4() {
			continue
		}
		if int(e.PortSet) >= len(numbers) {
			return nil, fmt.Errorf("%w: %s", errNoPortSet, rs.ID)
		}
		raw := e.Prefix.Addr().As4()
		first := binary.BigEndian.Uint32(raw[:])
		spans = append(spans, span{first, first | uint32(uint64(1)<<(32-e.Prefix.Bits())-1), numbers[e.PortSet]})
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.last, a.last))
	})
	return spans, nil
}

// ranges4 turns spans, which nest or are apart, into disjoint ranges, each with its
// port set: in order, beginning at 0 and without gaps. Where spans nest, the
// innermost answers.
func ranges4(spans []span) []abiVarvelRange4 {
	out := []abiVarvelRange4{{}}
	var open []span // the spans around the current place, the innermost last
	closeUntil := func(next uint64) {
		for len(open) > 0 && uint64(open[len(open)-1].last) < next {
			after := uint64(open[len(open)-1].last) + 1
			open = open[:len(open)-1]
			if after <= 0xffffffff {
				out = begin(out, uint32(after), innermost(open))
			}
		}
	}
	for _, s := range spans {
		closeUntil(uint64(s.first))
		open = append(open, s)
		out = begin(out, s.first, s.set)
	}
	closeUntil(1 << 32)
	return out
}

func innermost(open []span) uint32 {
	if len(open) == 0 {
		return 0
	}
	return open[len(open)-1].set
}

// begin starts a range. One that would be empty is replaced, and one that would
// say the same as its neighbour is not begun.
func begin(out []abiVarvelRange4, start, set uint32) []abiVarvelRange4 {
	if last := len(out) - 1; out[last].Start == start {
		out = out[:last]
	}
	if len(out) > 0 && out[len(out)-1].Set == set {
		return out
	}
	return append(out, abiVarvelRange4{Start: start, Set: set})
}
