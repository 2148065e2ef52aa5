package kernel

import (
	"fmt"
	"sort"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// portSets shares port sets between rule sets, by content. Number 0 is the empty
// one, which is never given out.
type portSets struct {
	table *ebpf.Map
	known map[string]*portSet
	used  map[uint32]bool
}

type portSet struct {
	index uint32
	users int
}

func newPortSets(table *ebpf.Map) *portSets {
	return &portSets{table: table, known: map[string]*portSet{}, used: map[uint32]bool{}}
}

// acquire returns the index of a port set, and the key to release it by.
func (p *portSets) acquire(ranges []ruleset.PortRange) (string, uint32, error) {
	if len(ranges) > ruleset.MaxRanges {
		return "", 0, fmt.Errorf("a port set has %d ranges; %d fit", len(ranges), ruleset.MaxRanges)
	}
	key := portKey(ranges)
	if set, ok := p.known[key]; ok {
		set.users++
		return key, set.index, nil
	}
	index, err := p.free()
	if err != nil {
		return "", 0, err
	}
	if err := p.table.Put(index, encodePorts(ranges)); err != nil {
		return "", 0, fmt.Errorf("store a port set: %w", err)
	}
	p.known[key], p.used[index] = &portSet{index: index, users: 1}, true
	return key, index, nil
}

// release counts one user less. Without users the entry is emptied, so that a later
// daemon sees that it is free; if that fails, it is never given out again.
func (p *portSets) release(key string) {
	set, ok := p.known[key]
	if !ok {
		return
	}
	if set.users--; set.users > 0 {
		return
	}
	delete(p.known, key)
	if err := p.table.Put(set.index, abiVarvelPortSet{}); err == nil {
		delete(p.used, set.index)
	}
}

func (p *portSets) free() (uint32, error) {
	for i := uint32(1); i < p.table.MaxEntries(); i++ {
		if !p.used[i] {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %d port sets are in use", ErrFull, len(p.used))
}

func encodePorts(ranges []ruleset.PortRange) abiVarvelPortSet {
	set := abiVarvelPortSet{Count: uint32(len(ranges))}
	for i, r := range ranges {
		set.Range[i].First, set.Range[i].Last, set.Range[i].Protocol = r.First, r.Last, uint8(r.Protocol)
	}
	return set
}

// portKey is the same for the same ranges in any order.
func portKey(ranges []ruleset.PortRange) string {
	parts := make([]string, len(ranges))
	for i, r := range ranges {
		parts[i] = fmt.Sprintf("%d/%d-%d", r.Protocol, r.First, r.Last)
	}
	sort.Strings(parts)
	return strings.Join(parts, ",")
}
