package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

var errNoPortSet = errors.New("the rule set names a port set that it does not have")

// ErrUnknownRuleSet is returned for a rule set that was not loaded.
var ErrUnknownRuleSet = errors.New("rule set is not loaded")

// maxRuleSets is how many rule sets fit; index 0 means none (bpf/lib/abi.h).
func (s *ruleSets) maxRuleSets() uint32 { return s.objects.maps["ranges4"].MaxEntries() }

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
	block uint32    // its IPv4 ranges, if they are in a block
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
	if set.block, err = s.fill4(index, rs, numbers); err != nil {
		return err
	}
	if err := s.fill6(index, rs, numbers); err != nil {
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

// fill4 puts the IPv4 part of a rule set at its index. No run uses the index yet,
// so half a rule set is never judged by. It returns how many ranges there are if
// they are in a block.
func (s *ruleSets) fill4(index uint32, rs *ruleset.RuleSet, numbers []uint32) (uint32, error) {
	spans, err := spans4(rs, numbers)
	if err != nil {
		return 0, err
	}
	l := layOut4(spans)
	return l.ranges, errors.Join(
		installArray(s.objects.maps["block4"], index, l.block, 0),
		installArray(s.objects.maps["hosts4"], index, l.hosts, 0),
		installArray(s.objects.maps["buckets4"], index, l.buckets, 0),
		installArray(s.objects.maps["ranges4"], index, l.rest, innerMap),
	)
}

// fill6 is fill4 for IPv6.
func (s *ruleSets) fill6(index uint32, rs *ruleset.RuleSet, numbers []uint32) error {
	var exact batch[abiVarvelAddress]
	var prefix batch[abiVarvelPrefix6]
	for _, e := range rs.Entries {
		a, bits := e.Prefix.Addr(), e.Prefix.Bits()
		switch {
		case a.Is4():
		case int(e.PortSet) >= len(numbers):
			return fmt.Errorf("%w: %s", errNoPortSet, rs.ID)
		case bits == 128:
			exact.add(address(a), numbers[e.PortSet])
		default:
			prefix.add(abiVarvelPrefix6{Length: uint32(bits), Address: address(a)}, numbers[e.PortSet])
		}
	}
	return errors.Join(
		exact.install(s.objects.maps["exact6"], index, hashSpec(16)),
		prefix.install(s.objects.maps["prefix6"], index, trieSpec(20)),
	)
}

// acquire counts one more user of a loaded rule set.
func (s *ruleSets) acquire(id string) (*loadedSet, error) {
	set, ok := s.byID[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrUnknownRuleSet, id)
	}
	set.users++
	return set, nil
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

// outerMaps are the maps that hold, at the index of a rule set, a map of its rules.
func outerMaps() []string {
	return []string{"block4", "hosts4", "buckets4", "ranges4", "exact6", "prefix6"}
}

// unload empties an index. The kernel lets a grace period pass in each delete,
// so no program still judges by the old maps or port sets when they are reused.
func (s *ruleSets) unload(set *loadedSet) error {
	var errs []error
	for _, name := range outerMaps() {
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

// Flags of maps (include/uapi/linux/bpf.h): tries demand the first, and arrays of
// different sizes in one outer map the second.
const (
	noPrealloc = 1 << 0
	innerMap   = 1 << 12
)

// installArray makes an array of values and puts it at index of an outer map.
// Without values it leaves the index empty.
func installArray[V any](outer *ebpf.Map, index uint32, values []V, flags uint32) error {
	if len(values) == 0 {
		return nil
	}
	keys := make([]uint32, len(values))
	for i := range keys {
		keys[i] = uint32(i)
	}
	inner, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Array, KeySize: 4, ValueSize: uint32(binary.Size(values[0])), MaxEntries: uint32(len(values)), Flags: flags,
	})
	if err != nil {
		return fmt.Errorf("make an array of %d entries: %w", len(values), err)
	}
	defer inner.Close()
	if _, err := inner.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("fill an array of %d entries: %w", len(values), err)
	}
	if err := outer.Put(index, inner); err != nil {
		return fmt.Errorf("install an array of %d entries: %w", len(values), full(err, "rule sets"))
	}
	return nil
}
