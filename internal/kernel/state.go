package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// readState brings the Go side up to what the adopted maps hold.
func (k *Kernel) readState() error {
	if err := k.objects.maps["node"].Lookup(uint32(0), &k.node); err != nil {
		return fmt.Errorf("read what the programs know of this node: %w", err)
	}
	var id uint64
	var r abiVarvelRun
	it := k.objects.maps["runs"].Iterate()
	for it.Next(&id, &r) {
		k.runs[id] = r
	}
	if _, ok := k.runs[probeRun]; ok { // the earlier daemon died while it looked for room
		delete(k.runs, probeRun)
		if err := absent(k.objects.maps["runs"].Delete(probeRun)); err != nil {
			return fmt.Errorf("remove a probe: %w", err)
		}
	}
	var key abiVarvelNameKey
	var unused uint32
	names := k.objects.maps["names"].Iterate()
	for names.Next(&key, &unused) {
		k.names[key.Run] = append(k.names[key.Run], key)
	}
	grants := k.objects.maps["inbound"].Iterate()
	for grants.Next(&id, &r) {
		k.grants[id] = r
	}
	if err := errors.Join(it.Err(), names.Err(), grants.Err()); err != nil {
		return fmt.Errorf("list the runs, their names and who may come to them: %w", err)
	}
	for id := range k.runs {
		if err := k.newShare(id); err != nil {
			return err
		}
	}
	k.sets = newRuleSets(k.objects)
	return errors.Join(k.sets.adopt(k.runs, k.grants), k.countNobody(), k.RestoreLeases())
}

// adopt takes account of the rule sets that runs use. Nobody remembers what they
// are, so they have no id and get no further user; they are unloaded like others
// when their runs have been given a rule set again.
func (s *ruleSets) adopt(users ...map[uint64]abiVarvelRun) error {
	for _, r := range allOf(users) {
		if r.Ruleset == 0 {
			continue
		}
		set, ok := s.byIndex[r.Ruleset]
		if !ok {
			set = &loadedSet{index: r.Ruleset, block: r.Ranges4}
			s.byIndex[r.Ruleset] = set
		}
		set.users++
	}
	if len(s.byIndex) == 0 {
		return nil
	}
	keys, err := s.ports.adopt(len(s.byIndex))
	for _, set := range s.byIndex {
		set.ports = keys // which of them are its own is not known: each holds all
	}
	return err
}

func allOf(users []map[uint64]abiVarvelRun) []abiVarvelRun {
	var all []abiVarvelRun
	for _, m := range users {
		all = slices.AppendSeq(all, maps.Values(m))
	}
	return all
}

// adopt takes account of the port sets in the table, each with so many users, and
// returns their keys.
func (p *portSets) adopt(users int) ([]string, error) {
	var keys []string
	var index uint32
	var raw abiVarvelPortSet
	it := p.table.Iterate()
	for it.Next(&index, &raw) {
		if index == 0 || raw.Count == 0 {
			continue
		}
		key := portKey(decodePorts(raw))
		if _, twice := p.known[key]; twice {
			key = fmt.Sprintf("again at %d: %s", index, key)
		}
		p.known[key], p.used[index] = &portSet{index: index, users: users}, true
		keys = append(keys, key)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("list the port sets: %w", err)
	}
	return keys, nil
}

func decodePorts(set abiVarvelPortSet) []ruleset.PortRange {
	var out []ruleset.PortRange
	for _, r := range set.Range[:min(int(set.Count), len(set.Range))] {
		out = append(out, ruleset.PortRange{First: r.First, Last: r.Last, Protocol: ruleset.Protocol(r.Protocol)})
	}
	return out
}

// removeStrays empties the indices that no run uses: rule sets that were idle when
// the earlier daemon ended.
func (s *ruleSets) removeStrays() error {
	var errs []error
	for _, m := range s.objects.maps {
		if m.Type() != ebpf.ArrayOfMaps {
			continue
		}
		var stray []uint32
		for index := range m.MaxEntries() {
			var inner ebpf.MapID
			if _, used := s.byIndex[index]; !used && m.Lookup(index, &inner) == nil {
				stray = append(stray, index)
			}
		}
		for _, index := range stray {
			errs = append(errs, absent(m.Delete(index)))
		}
	}
	return errors.Join(errs...)
}

// removeStrays takes away what belongs to no run: the earlier daemon died while it
// made one known or removed it.
func (k *Kernel) removeStrays() error {
	var errs []error
	for id, keys := range k.names {
		if _, ok := k.runs[id]; ok {
			continue
		}
		for i := range keys {
			errs = append(errs, absent(k.objects.maps["names"].Delete(&keys[i])))
		}
		delete(k.names, id)
	}
	for id := range k.grants {
		if _, ok := k.runs[id]; !ok {
			errs = append(errs, k.dropListen(id))
		}
	}
	for _, name := range []string{"counters", restMap, "shares"} {
		var strays [][]byte
		if err := eachEntry(k.objects.maps[name], func(key []byte, _ [][]byte) error {
			id := binary.LittleEndian.Uint64(key)
			if _, ok := k.runs[id]; !ok && id != Nobody {
				strays = append(strays, key)
			}
			return nil
		}); err != nil {
			errs = append(errs, err)
		}
		for _, key := range strays {
			errs = append(errs, absent(k.objects.maps[name].Delete(key)))
		}
	}
	return errors.Join(errs...)
}
