package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// ErrUnknownRuleSet is returned for a rule set that was not loaded.
var ErrUnknownRuleSet = errors.New("rule set is not loaded")

// maxRuleSets is how many rule sets fit; index 0 means none (bpf/lib/abi.h).
func (s *ruleSets) maxRuleSets() uint32 { return s.objects.maps["exact4"].MaxEntries() }

// idleTime is how long a rule set without users stays loaded. One that has just
// been loaded is about to get a user, and one that has just lost its last user
// often gets another: runs of one agent share it.
const idleTime = time.Minute

// loadedSet is one rule set in the kernel.
type loadedSet struct {
	id    string
	index uint32
	users int
	idle  time.Time // since when there are no users
	ports []string  // keys of the port sets that it holds
}

// ruleSets keeps account of what is loaded. Equal rule sets and equal port sets
// are kept once. The caller locks.
type ruleSets struct {
	objects *objects
	byID    map[string]*loadedSet
	byIndex map[uint32]*loadedSet
	ports   *portSets
}

func newRuleSets(o *objects) *ruleSets {
	return &ruleSets{
		objects: o, byID: map[string]*loadedSet{}, byIndex: map[uint32]*loadedSet{},
		ports: newPortSets(o.maps["port_sets"]),
	}
}

// load puts a rule set into the kernel. If it fails, nothing of it stays.
func (s *ruleSets) load(rs *ruleset.RuleSet) (err error) {
	now := time.Now()
	if set, ok := s.byID[rs.ID]; ok {
		set.idle = now
		return nil
	}
	if err := s.sweep(now); err != nil {
		return err
	}
	index, err := s.freeIndex()
	if err != nil {
		return err
	}
	set := &loadedSet{id: rs.ID, index: index, idle: now}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.unload(set))
		}
	}()
	numbers := make([]uint32, len(rs.PortSets))
	for i, ranges := range rs.PortSets {
		key, number, err := s.ports.acquire(ranges)
		if err != nil {
			return err
		}
		set.ports = append(set.ports, key)
		numbers[i] = number
	}
	if err := s.fill(index, rs, numbers); err != nil {
		return err
	}
	s.byID[rs.ID], s.byIndex[index] = set, set
	return nil
}

func (s *ruleSets) freeIndex() (uint32, error) {
	for i := uint32(1); i < s.maxRuleSets(); i++ {
		if _, taken := s.byIndex[i]; !taken {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %d rule sets are loaded", ErrFull, len(s.byID))
}

// fill makes the maps of a rule set and puts them at its index. No run uses the
// index yet, so half a rule set is never judged by.
func (s *ruleSets) fill(index uint32, rs *ruleset.RuleSet, numbers []uint32) error {
	var e4 batch[uint32]
	var e6 batch[abiVarvelAddress]
	var p4 batch[abiVarvelPrefix4]
	var p6 batch[abiVarvelPrefix6]
	for _, e := range rs.Entries {
		if int(e.PortSet) >= len(numbers) {
			return fmt.Errorf("rule set %s names a port set that it does not have", rs.ID)
		}
		number, bits, a := numbers[e.PortSet], e.Prefix.Bits(), e.Prefix.Addr()
		switch {
		case a.Is4() && bits == 32:
			e4.add(word4(a), number)
		case a.Is4():
			p4.add(abiVarvelPrefix4{Length: uint32(bits), Address: word4(a)}, number)
		case bits == 128:
			e6.add(address(a), number)
		default:
			p6.add(abiVarvelPrefix6{Length: uint32(bits), Address: address(a)}, number)
		}
	}
	return errors.Join(
		e4.install(s.objects.maps["exact4"], index, hashSpec(4)),
		e6.install(s.objects.maps["exact6"], index, hashSpec(16)),
		p4.install(s.objects.maps["prefix4"], index, trieSpec(8)),
		p6.install(s.objects.maps["prefix6"], index, trieSpec(20)),
	)
}

// acquire counts one more user of a loaded rule set and returns its index.
func (s *ruleSets) acquire(id string) (uint32, error) {
	set, ok := s.byID[id]
	if !ok {
		return 0, fmt.Errorf("%w: %s", ErrUnknownRuleSet, id)
	}
	set.users++
	return set.index, nil
}

// release counts one user less.
func (s *ruleSets) release(index uint32) {
	if set, ok := s.byIndex[index]; ok {
		set.users--
		set.idle = time.Now()
	}
}

// sweep unloads what nobody has used for a while.
func (s *ruleSets) sweep(now time.Time) error {
	var errs []error
	for index, set := range s.byIndex {
		if set.users > 0 || now.Sub(set.idle) < idleTime {
			continue
		}
		delete(s.byID, set.id)
		delete(s.byIndex, index)
		errs = append(errs, s.unload(set))
	}
	return errors.Join(errs...)
}

// unload empties an index. The kernel lets a grace period pass in each delete,
// so no program still judges by the old maps or port sets when they are reused.
func (s *ruleSets) unload(set *loadedSet) error {
	var errs []error
	for _, name := range []string{"exact4", "exact6", "prefix4", "prefix6"} {
		errs = append(errs, absent(s.objects.maps[name].Delete(set.index)))
	}
	for _, key := range set.ports {
		s.ports.release(key)
	}
	return errors.Join(errs...)
}

// batch collects the entries of one inner map.
type batch[K any] struct {
	keys   []K
	values []uint32
}

func (b *batch[K]) add(key K, value uint32) {
	b.keys = append(b.keys, key)
	b.values = append(b.values, value)
}

// install makes an inner map of the right size, fills it and puts it at index.
// An empty batch leaves the index empty.
func (b *batch[K]) install(outer *ebpf.Map, index uint32, spec *ebpf.MapSpec) error {
	if len(b.keys) == 0 {
		return nil
	}
	spec.MaxEntries = uint32(len(b.keys))
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return fmt.Errorf("make a map for %d rules: %w", len(b.keys), err)
	}
	defer inner.Close()
	if _, err := inner.BatchUpdate(b.keys, b.values, nil); err != nil {
		return fmt.Errorf("fill a map with %d rules: %w", len(b.keys), err)
	}
	if err := outer.Put(index, inner); err != nil {
		return fmt.Errorf("install a map of %d rules: %w", len(b.keys), full(err, "rule sets"))
	}
	return nil
}

func hashSpec(keySize uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Type: ebpf.Hash, KeySize: keySize, ValueSize: 4}
}

func trieSpec(keySize uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Type: ebpf.LPMTrie, KeySize: keySize, ValueSize: 4, Flags: noPrealloc}
}

// noPrealloc is BPF_F_NO_PREALLOC, which tries demand.
const noPrealloc = 1

func word4(a netip.Addr) uint32 {
	raw := a.As4()
	return nativeUint32(raw[:])
}
