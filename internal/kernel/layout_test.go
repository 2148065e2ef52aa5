package kernel

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

func mustSpecs(t testing.TB) *specs {
	t.Helper()
	s, err := readSpecs()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func layoutOf(t testing.TB, s *specs) layout {
	t.Helper()
	l, err := s.layout(Config{}.hooks())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLayoutIsTheSameForTheSameSources: maps are read in another order each time.
func TestLayoutIsTheSameForTheSameSources(t *testing.T) {
	want := layoutOf(t, mustSpecs(t))
	for range 50 {
		if got := layoutOf(t, mustSpecs(t)); !maps.Equal(got, want) {
			t.Fatalf("the same sources have the layouts %v and %v", got, want)
		}
	}
	hashes := map[uint64]string{}
	for pin, h := range want {
		if twin, ok := hashes[h]; ok && !strings.HasPrefix(pin, "map_on_") && h != 0 {
			t.Logf("%s and %s have one layout", pin, twin)
		}
		hashes[h] = pin
	}
	if len(want) < 30 {
		t.Errorf("only %d pins are described", len(want))
	}
}

// TestLayoutSeesEveryChange changes what a compiler would let pass.
func TestLayoutSeesEveryChange(t *testing.T) {
	structOf := func(s *specs, name string) *btf.Struct {
		var found *btf.Struct
		if err := s.abi.Types.TypeByName(name, &found); err != nil {
			t.Fatal(err)
		}
		return found
	}
	swap := func(m []btf.Member, a, b string) {
		i := slices.IndexFunc(m, func(m btf.Member) bool { return m.Name == a })
		j := slices.IndexFunc(m, func(m btf.Member) bool { return m.Name == b })
		m[i].Name, m[j].Name = m[j].Name, m[i].Name
	}
	for _, tt := range []struct {
		name   string
		change func(*specs)
		want   []string
	}{
		{"two fields of equal size in another order", func(s *specs) {
			v := btf.Copy(s.maps()["sockets"].Value).(*btf.Struct)
			swap(v.Members, "generation", "pid")
			s.maps()["sockets"].Value = v
		}, []string{"sockets"}},
		{"in a struct inside", func(s *specs) {
			v := btf.Copy(s.maps()["port_sets"].Value).(*btf.Struct)
			swap(v.Members[1].Type.(*btf.Array).Type.(*btf.Struct).Members, "first", "last")
			s.maps()["port_sets"].Value = v
		}, []string{"port_sets"}},
		{"in the key", func(s *specs) {
			k := btf.Copy(s.maps()["redirects"].Key).(*btf.Struct)
			swap(k.Members, "port", "protocol")
			s.maps()["redirects"].Key = k
		}, []string{"redirects"}},
		{"in what the ring carries", func(s *specs) {
			swap(structOf(s, "varvel_event").Members, "pid", "uid")
		}, []string{"denials", "life"}},
		{"in an inner map's value", func(s *specs) {
			swap(structOf(s, "varvel_range4").Members, "start", "set")
		}, []string{"ranges4"}},
		{"an enumerator", func(s *specs) {
			var e *btf.Enum
			if err := s.abi.Types.TypeByName("varvel_hook", &e); err != nil {
				t.Fatal(err)
			}
			e.Values[1].Name, e.Values[2].Name = e.Values[2].Name, e.Values[1].Name
		}, []string{"denials"}},
		{"a size", func(s *specs) { s.maps()["names"].MaxEntries++ }, []string{"names"}},
		{"a flag", func(s *specs) { s.maps()["sockets"].Flags = 1 }, []string{"sockets"}},
		{"a kind", func(s *specs) { s.maps()["counters"].Type = ebpf.Hash }, []string{"counters"}},
		{"an inner map", func(s *specs) { s.maps()["exact6"].InnerMap.KeySize = 8 }, []string{"exact6"}},
	} {
		s := mustSpecs(t)
		before := layoutOf(t, s)
		tt.change(s)
		after := layoutOf(t, s)
		var changed []string
		for pin := range before {
			if before[pin] != after[pin] {
				changed = append(changed, strings.TrimPrefix(pin, "map_"))
			}
		}
		slices.Sort(changed)
		if !slices.Equal(changed, tt.want) {
			t.Errorf("%s: %v changed, want %v", tt.name, changed, tt.want)
		}
	}
}

// TestEverySharedTypeIsInALayout: one that no hash covers could change unseen.
func TestEverySharedTypeIsInALayout(t *testing.T) {
	s := mustSpecs(t)
	seen := map[string]bool{}
	var walk func(btf.Type)
	walk = func(t btf.Type) {
		t = btf.UnderlyingType(t)
		seen[t.TypeName()] = true
		switch t := t.(type) {
		case *btf.Struct:
			for _, m := range t.Members {
				walk(m.Type)
			}
		case *btf.Union:
			for _, m := range t.Members {
				walk(m.Type)
			}
		case *btf.Array:
			walk(t.Type)
		}
	}
	for name, m := range s.maps() {
		for _, t := range []btf.Type{m.Key, m.Value} {
			if t != nil {
				walk(t)
			}
		}
		if m.InnerMap != nil && m.InnerMap.Key != nil {
			walk(m.InnerMap.Key)
		}
		for _, extra := range meanings()[name] {
			ty, err := s.abi.Types.AnyTypeByName(extra)
			if err != nil {
				t.Fatal(err)
			}
			walk(ty)
		}
	}
	shared := 0
	for ty, err := range s.abi.Types.All() {
		if err != nil {
			t.Fatal(err)
		}
		if name := ty.TypeName(); strings.HasPrefix(name, "varvel_") {
			shared++
			if !seen[name] {
				t.Errorf("%s is shared, but in no map's layout: name it in meanings", name)
			}
		}
	}
	if shared < 15 {
		t.Errorf("only %d shared types were found", shared)
	}
}

func TestRulesAreReplacedTogether(t *testing.T) {
	s := mustSpecs(t)
	want, rules := layoutOf(t, s), s.ruleMaps()
	if len(rules) < 4 {
		t.Fatalf("only %v are maps of rules", rules)
	}
	for _, tt := range []struct {
		name   string
		change func(old layout)
		rules  bool
	}{
		{"nothing", func(layout) {}, false},
		{"one of them", func(old layout) { old[mapPin(rules[0])]++ }, true},
		{"one that is new", func(old layout) { delete(old, mapPin(rules[0])) }, true},
		{"one that is no more", func(old layout) { old["map_before"] = 1 }, true},
		{"another", func(old layout) { old["map_names"]++ }, false},
		{"a hook", func(old layout) { delete(old, "link_varvel_bind4") }, false},
	} {
		old := maps.Clone(want)
		tt.change(old)
		got := old.replacedBy(want, rules)
		for _, name := range rules {
			if got[name] != tt.rules {
				t.Errorf("%s differs: %s is replaced: %t", tt.name, name, got[name])
			}
		}
	}
	for name := range carriedMaps() {
		if s.maps()[name] == nil {
			t.Errorf("there is no map %s to carry over", name)
		}
	}
}

func TestMovesGoByName(t *testing.T) {
	u32 := &btf.Int{Size: 4}
	u16 := &btf.Int{Size: 2}
	point := func(names ...string) *btf.Struct {
		s := &btf.Struct{Name: "point", Size: uint32(4 * len(names))}
		for i, n := range names {
			s.Members = append(s.Members, btf.Member{Name: n, Type: u32, Offset: btf.Bits(32 * i)})
		}
		return s
	}
	whole := func(inner *btf.Struct, count uint32, last btf.Type) *btf.Struct {
		return &btf.Struct{Name: "whole", Size: inner.Size + 4*count + 4, Members: []btf.Member{
			{Name: "inner", Type: inner}, {Name: "many", Type: &btf.Array{Type: u32, Nelems: count, Index: u32}, Offset: btf.Bits(8 * inner.Size)},
			{Name: "last", Type: last, Offset: btf.Bits(8 * (inner.Size + 4*count))},
		}}
	}
	old, new := whole(point("x", "y"), 2, u32), whole(point("z", "y", "x"), 3, u16)
	m := &moves{size: new.Size}
	m.structs(old, new, 0, 0, nil)
	in := []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 9, 9, 9, 9}
	want := []byte{0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if got := m.apply(in); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := m.apply(in[:6]); len(got) != len(want) || got[4] != 0 {
		t.Errorf("a short value gave %v", got)
	}
	some := &moves{size: new.Size}
	some.structs(old, new, 0, 0, []string{"many"})
	if got := some.apply(in); got[4] != 0 || got[12] != 3 {
		t.Errorf("only one field: %v", got)
	}
}
