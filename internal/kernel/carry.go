package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
)

// carried are the maps whose entries go over into another layout, field by field;
// with the fields to take, if not all. Not among them: socket storage, which user
// space can't list; rule sets, which the daemon compiles again; the ring.
func carriedMaps() map[string][]string {
	return map[string][]string{"node": nil, "runs": {"flags"}, "counters": nil, restMap: nil, "flows": nil, "names": nil, "redirects": nil}
}

// carryOver fills the maps that were made anew, and reads the state of the Go side
// from the maps.
func (a *adopter) carryOver() error {
	for name, fields := range carriedMaps() {
		if !a.replaced[name] || a.old.maps[name] == nil || name == "redirects" && a.replaced["sockets"] {
			continue
		}
		if err := a.carry(name, fields); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	return errors.Join(a.k.readState(), a.countCopied())
}

func (a *adopter) carry(name string, fields []string) error {
	from, to, spec := a.old.maps[name], a.k.objects.maps[name], a.specs.maps()[name]
	types, err := typesOf(from)
	if err != nil {
		return err
	}
	key, err := newMoves(types, spec.Key, nil)
	if err != nil {
		return err
	}
	value, err := newMoves(types, spec.Value, fields)
	if err != nil {
		return err
	}
	return eachEntry(from, func(k []byte, v [][]byte) error {
		for i := range v {
			v[i] = value.apply(v[i])
		}
		var err error
		if to.Type() == ebpf.PerCPUHash {
			err = to.Put(key.apply(k), v)
		} else {
			err = to.Put(key.apply(k), v[0])
		}
		return full(err, name)
	})
}

// eachEntry gives every entry of a map, the value as one for each CPU or as one.
func eachEntry(m *ebpf.Map, handle func(key []byte, value [][]byte) error) error {
	var keys [][]byte
	var key, next []byte
	var err error
	for err = m.NextKey(nil, &next); err == nil; err = m.NextKey(key, &next) {
		key = append([]byte(nil), next...)
		keys = append(keys, key)
		if len(keys) > int(m.MaxEntries()) {
			break
		}
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	for _, key := range keys {
		raw, err := m.LookupBytes(key)
		if err != nil {
			return err
		}
		if raw == nil {
			continue // it went meanwhile
		}
		if err := handle(key, splitCPUs(raw, int(m.ValueSize()))); err != nil {
			return err
		}
	}
	return nil
}

// splitCPUs cuts what the kernel returns for all CPUs, each at a multiple of 8 bytes.
func splitCPUs(raw []byte, size int) [][]byte {
	stride := (size + 7) / 8 * 8
	var out [][]byte
	for len(raw) >= size {
		out = append(out, raw[:size])
		raw = raw[min(stride, len(raw)):]
	}
	return out
}

// typesOf returns the types that a map was made with.
func typesOf(m *ebpf.Map) (*btf.Spec, error) {
	info, err := m.Info()
	if err != nil {
		return nil, err
	}
	id, ok := info.BTFID()
	if !ok {
		return nil, errors.New("it was made without a description of its types")
	}
	h, err := btf.NewHandleFromID(id)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Spec(nil)
}

// countCopied remembers what was copied, before anybody counts on.
func (a *adopter) countCopied() error {
	if !a.replaced["counters"] {
		return nil
	}
	a.counted = map[uint64][]abiVarvelCounters{}
	for _, id := range append(slices.Collect(maps.Keys(a.k.runs)), Nobody) {
		var c []abiVarvelCounters
		if err := a.k.objects.maps["counters"].Lookup(id, &c); err != nil {
			return fmt.Errorf("read the counters of a run: %w", err)
		}
		a.counted[id] = c
	}
	return nil
}

// countRest keeps what the old programs have counted between the copy of their
// counters and the switch: beside the map, because the new programs count in it.
func (a *adopter) countRest() error {
	if !a.replaced["counters"] {
		return nil
	}
	old, rest := a.old.maps["counters"], a.k.objects.maps[restMap]
	types, err := typesOf(old)
	if err != nil {
		return err
	}
	value, err := newMoves(types, a.specs.maps()["counters"].Value, nil)
	if err != nil {
		return err
	}
	var errs []error
	for id, copied := range a.counted {
		raw, err := old.LookupBytes(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if raw == nil {
			continue // an earlier build did not count nobody
		}
		sum, err := readRest(rest, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sum.add(copied, decodeCounters(splitCPUs(raw, int(old.ValueSize())), value))
		errs = append(errs, rest.Put(id, sum))
	}
	return errors.Join(errs...)
}

func decodeCounters(perCPU [][]byte, value *moves) []abiVarvelCounters {
	out := make([]abiVarvelCounters, len(perCPU))
	for i, v := range perCPU {
		binary.Decode(value.apply(v), binary.LittleEndian, &out[i]) // as long as the type, or 0
	}
	return out
}

// countEvents looks how much is left in rings that nobody will read.
func (a *adopter) countEvents() error {
	for _, ring := range rings() {
		if !a.replaced[ring] || a.old.maps[ring] == nil {
			continue
		}
		r, err := ringbuf.NewReader(a.old.maps[ring])
		if err != nil {
			return err
		}
		a.k.adoption.EventBytes += uint64(r.AvailableBytes())
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}
