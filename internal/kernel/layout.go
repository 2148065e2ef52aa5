package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// layout says what each pin is, by a hash: of a map, of all that gives its bytes
// a meaning; of a link, of where it is attached. Two builds with the same hash for
// a map may share it. It is kept in the kernel beside the maps.
type layout map[string]uint64

// meanings names the shared types that a map depends on and that its own
// description does not lead to. A test holds every shared type to be in here or
// there.
func meanings() map[string][]string {
	return map[string][]string{
		"runs":     {"varvel_run_flags"},
		"counters": {"varvel_reason", "varvel_class"},
		restMap:    {"varvel_reason", "varvel_class"},
		"life":     {"varvel_event", "varvel_exec_event", "varvel_event_kind"},
		"denials":  {"varvel_event", "varvel_event_kind", "varvel_reason", "varvel_hook"},
		"sockets":  {"varvel_socket_flags", "varvel_run_flags"},
		"shares":   {"varvel_limits"},
		"inbound":  {"varvel_run_flags"},
		"block4":   {"varvel_block4", "varvel_layout4"},
		"hosts4":   {"varvel_line4", "varvel_layout4"},
		"buckets4": {"varvel_line4", "varvel_layout4"},
		"ranges4":  {"varvel_range4"},
		"prefix6":  {"varvel_prefix6"},
	}
}

// layout describes what this build would pin.
func (s *specs) layout(hooks []hook) (layout, error) {
	out := layout{}
	for name, m := range s.maps() {
		h := sha256.New()
		writeMap(h, m)
		for _, extra := range meanings()[name] {
			t, err := s.abi.Types.AnyTypeByName(extra)
			if err != nil {
				return nil, fmt.Errorf("the built-in objects lack %s: %w", extra, err)
			}
			writeType(h, t, 0)
		}
		out[mapPin(name)] = sum(h)
	}
	for _, k := range hooks {
		h := sha256.New()
		fmt.Fprintf(h, "%s %d %d", k.program, k.attach, out[mapPin(k.slot)])
		out[linkPin(k.program)] = sum(h)
	}
	return out, nil
}

func sum(h hash.Hash) uint64 { return binary.LittleEndian.Uint64(h.Sum(nil)) }

func writeMap(w io.Writer, m *ebpf.MapSpec) {
	fmt.Fprintf(w, "map %d %d %d %d %d %d\n", m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags, m.MapExtra)
	for _, t := range []btf.Type{m.Key, m.Value} {
		if t != nil {
			writeType(w, t, 0)
		}
	}
	if m.InnerMap != nil {
		writeMap(w, m.InnerMap)
	}
}

// maxDepth is far more than shared types nest.
const maxDepth = 32

// writeType writes everything about a type that decides how bytes are read. Names
// of fields and of enumerators are part of it: a field that took another's place
// has another meaning.
func writeType(w io.Writer, t btf.Type, depth int) {
	if depth > maxDepth {
		fmt.Fprintln(w, "deep")
		return
	}
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		writeMembers(w, "struct "+t.Name, t.Size, t.Members, depth)
	case *btf.Union:
		writeMembers(w, "union "+t.Name, t.Size, t.Members, depth)
	case *btf.Array:
		fmt.Fprintf(w, "array %d\n", t.Nelems)
		writeType(w, t.Type, depth+1)
	case *btf.Int:
		fmt.Fprintf(w, "int %d %d\n", t.Size, t.Encoding)
	case *btf.Enum:
		fmt.Fprintf(w, "enum %s %d %t\n", t.Name, t.Size, t.Signed)
		for _, v := range t.Values {
			fmt.Fprintf(w, "%s=%d\n", v.Name, v.Value)
		}
	default:
		fmt.Fprintf(w, "%T %s\n", t, t.TypeName())
	}
}

func writeMembers(w io.Writer, what string, size uint32, members []btf.Member, depth int) {
	fmt.Fprintf(w, "%s %d {\n", what, size)
	for _, m := range members {
		fmt.Fprintf(w, "%s @%d:%d ", m.Name, m.Offset, m.BitfieldSize)
		writeType(w, m.Type, depth+1)
	}
	fmt.Fprintln(w, "}")
}

// layoutEntries is how many pins a layout has room for; nameBytes is how long the
// name of one may be.
const (
	layoutEntries = 128
	nameBytes     = 32
)

// store puts the layout into a map of its own. User space alone reads it, so it is
// in no C file.
func (l layout) store() (_ *ebpf.Map, err error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: layoutMap, Type: ebpf.Hash, KeySize: nameBytes, ValueSize: 8, MaxEntries: layoutEntries, Flags: noPrealloc,
	})
	if err != nil {
		return nil, fmt.Errorf("make the map of the layout: %w", err)
	}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(l)) {
		var key [nameBytes]byte
		if copy(key[:], name) < len(name) {
			return nil, fmt.Errorf("the name of a pin is too long: %s", name)
		}
		if err := m.Put(key, l[name]); err != nil {
			return nil, fmt.Errorf("store the layout: %w", err)
		}
	}
	return m, nil
}

// readLayout is the inverse of store.
func readLayout(m *ebpf.Map) (layout, error) {
	out := layout{}
	var key [nameBytes]byte
	var value uint64
	it := m.Iterate()
	for it.Next(&key, &value) {
		out[string(bytes.TrimRight(key[:], "\x00"))] = value
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the layout of the pinned maps: %w", err)
	}
	return out, nil
}
