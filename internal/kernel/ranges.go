package kernel

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/varvel/varvel/internal/ruleset"
)

// smallRanges is up to how many ranges are searched as they are. Buckets take
// 4 MiB, and a search of so few ranges stays in the processor's cache.
const smallRanges = 2048

// span is an IPv4 prefix as the addresses that it covers, both included.
type span struct {
	first, last uint32
	set         uint32
}

// ranges4 turns the IPv4 prefixes of a rule set into disjoint ranges, each with
// its port set: in order, beginning at 0 and without gaps. Where prefixes nest,
// the longest answers. It is empty if the rule set has no IPv4 prefix.
func ranges4(rs *ruleset.RuleSet, numbers []uint32) ([]abiVarvelRange4, error) {
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
	if len(spans) == 0 {
		return nil, nil
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(b.last, a.last))
	})
	return flatten(spans), nil
}

// flatten walks over spans that nest or are apart, outer ones first.
func flatten(spans []span) []abiVarvelRange4 {
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

// buckets4 sorts ranges into buckets by the upper 16 bits of their addresses,
// cutting those that reach over an edge. What does not fit into its bucket comes
// back as rest, which the bucket points into.
func buckets4(ranges []abiVarvelRange4) (buckets []abiVarvelBucket4, rest []abiVarvelRange4) {
	buckets = make([]abiVarvelBucket4, 1<<16)
	var own []abiVarvelRange4 // of one bucket
	next, set := 0, uint32(0)
	for upper := range uint32(1 << 16) {
		own = own[:0]
		if next == len(ranges) || ranges[next].Start != upper<<16 {
			own = append(own, abiVarvelRange4{Start: upper << 16, Set: set})
		}
		for next < len(ranges) && ranges[next].Start>>16 == upper {
			own = append(own, ranges[next])
			next++
		}
		set = own[len(own)-1].Set
		b := &buckets[upper]
		b.Count = uint32(len(own))
		if len(own) > len(b.Slot) {
			b.setFirst(uint32(len(rest)))
			rest = append(rest, own...)
			continue
		}
		for i, r := range own {
			b.Slot[i].Start, b.Slot[i].Set = uint16(r.Start), uint16(r.Set)
		}
	}
	return buckets, rest
}

// setFirst writes the union's other member, which C has in the place of slot 0.
func (b *abiVarvelBucket4) setFirst(first uint32) {
	b.Slot[0].Start, b.Slot[0].Set = uint16(first), uint16(first>>16)
}

func (b *abiVarvelBucket4) first() uint32 {
	return uint32(b.Slot[0].Start) | uint32(b.Slot[0].Set)<<16
}
