package ruleset

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// allPorts is what a rule without ports allows.
func allPorts() []PortRange {
	return []PortRange{{0, 65535, TCP}, {0, 65535, UDP}}
}

// MergePorts returns ranges sorted by protocol and first port, with those that
// overlap or touch made one. It does not change its argument.
func MergePorts(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	merged := sorted[:0]
	for _, r := range sorted {
		if n := len(merged); n > 0 && joins(merged[n-1], r) {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return slices.Clip(merged)
}

// joins reports whether b, which does not begin before a, overlaps or touches a.
func joins(a, b PortRange) bool {
	return a.Protocol == b.Protocol && int(b.First) <= int(a.Last)+1
}

func checkRange(r PortRange) error {
	if r.Protocol != TCP && r.Protocol != UDP {
		return fmt.Errorf("protocol number %d is neither TCP (6) nor UDP (17)", r.Protocol)
	}
	if r.First > r.Last {
		return fmt.Errorf("the port range %d-%d ends before it begins", r.First, r.Last)
	}
	return nil
}

// emptySet is the number of the port set that allows nothing.
const emptySet uint32 = 0

// interner gives equal port sets equal numbers and remembers their unions.
type interner struct {
	list   [][]PortRange
	byKey  map[string]uint32
	unions map[[2]uint32]uint32
	key    []byte // scratch
}

func newInterner() *interner {
	in := &interner{byKey: make(map[string]uint32), unions: make(map[[2]uint32]uint32)}
	in.number(nil) // emptySet
	return in
}

// ports returns the number of the set that a rule's ports make.
func (in *interner) ports(ranges []PortRange) (uint32, error) {
	if len(ranges) == 0 {
		return in.number(allPorts()), nil
	}
	for _, r := range ranges {
		if err := checkRange(r); err != nil {
			return 0, err
		}
	}
	merged := ranges
	if !isMerged(ranges) {
		merged = MergePorts(ranges)
	}
	if len(merged) > MaxRanges {
		return 0, errors.New(tooMany(len(merged)))
	}
	return in.number(merged), nil
}

// isMerged reports whether MergePorts would change nothing.
func isMerged(ranges []PortRange) bool {
	for i := 1; i < len(ranges); i++ {
		a, b := ranges[i-1], ranges[i]
		if a.Protocol > b.Protocol || a.Protocol == b.Protocol && int(b.First) <= int(a.Last)+1 {
			return false
		}
	}
	return true
}

func tooMany(n int) string {
	return fmt.Sprintf("it has %d port ranges, and an address may have %d; write fewer and wider ranges", n, MaxRanges)
}

// number returns the number of a merged set.
func (in *interner) number(set []PortRange) uint32 {
	in.key = appendPorts(in.key[:0], set)
	if n, ok := in.byKey[string(in.key)]; ok {
		return n
	}
	n := uint32(len(in.list))
	in.list = append(in.list, slices.Clone(set))
	in.byKey[string(in.key)] = n
	return n
}

// union returns the number of the set that allows what a or b allow.
func (in *interner) union(a, b uint32) uint32 {
	if a == b || b == emptySet {
		return a
	}
	if a == emptySet {
		return b
	}
	pair := [2]uint32{min(a, b), max(a, b)}
	if n, ok := in.unions[pair]; ok {
		return n
	}
	n := in.number(MergePorts(slices.Concat(in.list[a], in.list[b])))
	in.unions[pair] = n
	return n
}

func appendPorts(b []byte, set []PortRange) []byte {
	for _, r := range set {
		b = append(b, byte(r.Protocol))
		b = binary.BigEndian.AppendUint16(b, r.First)
		b = binary.BigEndian.AppendUint16(b, r.Last)
	}
	return b
}
