package kernel

import "slices"

// The measures of struct varvel_block4 and struct varvel_line4 (bpf/lib/abi.h),
// which say what the layouts here mean.
const (
	blockRanges = int(abiVarvelLayout4LAYOUT4BLOCK)
	lineSlots   = int(abiVarvelLayout4LAYOUT4SLOTS)
	setBits     = uint32(abiVarvelLayout4LAYOUT4SET_BITS)
	hostShift   = 32 - uint32(abiVarvelLayout4LAYOUT4HOST_BITS)
	hostLines   = 1 << uint32(abiVarvelLayout4LAYOUT4HOST_BITS)
	bucketShift = 32 - uint32(abiVarvelLayout4LAYOUT4BUCKET_BITS)
	bucketLines = 1 << uint32(abiVarvelLayout4LAYOUT4BUCKET_BITS)
	factor      = uint32(abiVarvelLayout4LAYOUT4FACTOR)
	elsewhere   = uint32(abiVarvelLayout4LAYOUT4ELSEWHERE)
)

// layout4 is the IPv4 part of a rule set as the kernel programs search it: a block,
// or for a large one any of the rest. What is empty has no map.
type layout4 struct {
	block   []abiVarvelBlock4 // one or none
	ranges  uint32            // in the block
	hosts   []abiVarvelLine4
	buckets []abiVarvelLine4
	rest    []abiVarvelRange4 // of the buckets that overflow
}

// layOut4 lays out spans.
func layOut4(spans []span) layout4 {
	if len(spans) == 0 {
		return layout4{}
	}
	ranges := ranges4(spans)
	if len(ranges) <= blockRanges {
		return layout4{block: []abiVarvelBlock4{newBlock4(ranges)}, ranges: uint32(len(ranges))}
	}
	var l layout4
	if l.hosts, spans = newHosts4(spans); l.hosts != nil {
		ranges = ranges4(spans)
	}
	if len(spans) > 0 {
		l.buckets, l.rest = newBuckets4(ranges)
	}
	return l
}

func newBlock4(ranges []abiVarvelRange4) (b abiVarvelBlock4) {
	for i := range b.Start {
		b.Start[i], b.Set[i] = 0xffffffff, uint16(ranges[len(ranges)-1].Set)
	}
	for i, r := range ranges {
		b.Start[i], b.Set[i] = r.Start, uint16(r.Set)
	}
	return b
}

// newHosts4 puts host routes into a table of lines and returns the other spans.
// A host route that finds its line full is one of these: a route of one address
// is a range like any other. If there are more than the table has slots, there is
// no table, because most of its look-ups would be in vain.
func newHosts4(spans []span) (lines []abiVarvelLine4, rest []span) {
	hosts := 0
	for _, s := range spans {
		if s.isHost() {
			hosts++
		}
	}
	if hosts == 0 || hosts > hostLines*lineSlots {
		return nil, spans
	}
	lines = make([]abiVarvelLine4, hostLines)
	for _, s := range spans {
		product := s.first * factor
		line := &lines[product>>hostShift]
		if !s.isHost() || line.Slot[0] != 0 { // they are filled from the end
			rest = append(rest, s)
			continue
		}
		line.Slot[0] = product<<setBits | s.set
		slices.Sort(line.Slot[:])
	}
	return lines, rest
}

// newBuckets4 sorts ranges into lines by the upper bits of their addresses, cutting
// those that reach over an edge. The ranges of a line that they do not fit into
// come back as rest.
func newBuckets4(ranges []abiVarvelRange4) (lines []abiVarvelLine4, rest []abiVarvelRange4) {
	lines = make([]abiVarvelLine4, bucketLines)
	var own []abiVarvelRange4 // of one line
	next, set := 0, uint32(0)
	for i := range lines {
		begin := uint32(i) << bucketShift
		own = own[:0]
		if next == len(ranges) || ranges[next].Start != begin {
			own = append(own, abiVarvelRange4{Start: begin, Set: set})
		}
		for next < len(ranges) && ranges[next].Start>>bucketShift == uint32(i) {
			own = append(own, ranges[next])
			next++
		}
		set = own[len(own)-1].Set
		if len(own) > lineSlots {
			lines[i].Slot[0], lines[i].Slot[1] = elsewhere|uint32(len(own)), uint32(len(rest))
			rest = append(rest, own...)
			continue
		}
		lines[i].fill(own)
	}
	return lines, rest
}

// fill writes ranges of one line's addresses into it.
func (l *abiVarvelLine4) fill(ranges []abiVarvelRange4) {
	const below = uint32(1)<<bucketShift - 1
	for i := range l.Slot {
		l.Slot[i] = below<<setBits | ranges[len(ranges)-1].Set
	}
	for i, r := range ranges {
		l.Slot[i] = r.Start&below<<setBits | r.Set
	}
}
