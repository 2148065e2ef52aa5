package kernel

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"
)

// moves turn a value of an old layout into one of a new: what has the same name
// and size keeps its bytes, and everything else is 0. In these structures 0 always
// means less: no rule set, no door, nothing counted.
type moves struct {
	size  uint32
	moves []move
}

type move struct{ from, to, size uint32 }

func (m *moves) apply(old []byte) []byte {
	out := make([]byte, m.size)
	for _, v := range m.moves {
		if int(v.from+v.size) <= len(old) {
			copy(out[v.to:v.to+v.size], old[v.from:])
		}
	}
	return out
}

// newMoves finds the moves for a type among old types, by its name. Only the given
// fields are moved, if there are any.
func newMoves(old *btf.Spec, t btf.Type, fields []string) (*moves, error) {
	size, err := btf.Sizeof(t)
	if err != nil {
		return nil, err
	}
	m := &moves{size: uint32(size)}
	to, ok := btf.UnderlyingType(t).(*btf.Struct)
	if !ok {
		m.moves = []move{{0, 0, m.size}} // a plain number
		return m, nil
	}
	var from *btf.Struct
	if err := old.TypeByName(to.Name, &from); err != nil {
		return nil, fmt.Errorf("the old map has no %s: %w", to.Name, err)
	}
	m.structs(from, to, 0, 0, fields)
	return m, nil
}

func (m *moves) structs(from, to *btf.Struct, fromAt, toAt uint32, fields []string) {
	for _, member := range to.Members {
		if fields != nil && !slices.Contains(fields, member.Name) {
			continue
		}
		i := slices.IndexFunc(from.Members, func(o btf.Member) bool { return o.Name == member.Name })
		if i < 0 || member.BitfieldSize != 0 || from.Members[i].BitfieldSize != 0 {
			continue
		}
		m.types(from.Members[i].Type, member.Type, fromAt+from.Members[i].Offset.Bytes(), toAt+member.Offset.Bytes())
	}
}

func (m *moves) types(from, to btf.Type, fromAt, toAt uint32) {
	from, to = btf.UnderlyingType(from), btf.UnderlyingType(to)
	switch to := to.(type) {
	case *btf.Struct:
		if from, ok := from.(*btf.Struct); ok {
			m.structs(from, to, fromAt, toAt, nil)
		}
	case *btf.Array:
		if from, ok := from.(*btf.Array); ok {
			m.arrays(from, to, fromAt, toAt)
		}
	case *btf.Int, *btf.Enum:
		size, err := btf.Sizeof(to)
		if old, errOld := btf.Sizeof(from); err == nil && errOld == nil && old == size {
			m.moves = append(m.moves, move{fromAt, toAt, uint32(size)})
		}
	}
}

// arrays moves as many elements as both have: enumerators are only ever added.
func (m *moves) arrays(from, to *btf.Array, fromAt, toAt uint32) {
	oldSize, errOld := btf.Sizeof(from.Type)
	size, err := btf.Sizeof(to.Type)
	if err != nil || errOld != nil {
		return
	}
	for i := range min(from.Nelems, to.Nelems) {
		m.types(from.Type, to.Type, fromAt+i*uint32(oldSize), toAt+i*uint32(size))
	}
}
