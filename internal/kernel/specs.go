package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// specs is what this build of Varvel brings to the kernel. It is data only:
// nothing of it is loaded. abi knows every shared type and nearly every map, so
// it comes first.
type specs struct {
	abi      *ebpf.CollectionSpec
	programs []*ebpf.CollectionSpec
}

func readSpecs() (*specs, error) {
	var all []*ebpf.CollectionSpec
	for _, read := range []func() (*ebpf.CollectionSpec, error){loadAbi, loadAddress, loadSocket, loadInbound, loadTrace} {
		s, err := read()
		if err != nil {
			return nil, fmt.Errorf("read the built-in objects: %w", err)
		}
		s.Variables = nil // there are none but the ABI object's type references
		for name := range s.Maps {
			if strings.HasPrefix(name, ".") {
				delete(s.Maps, name) // they are in here
			}
		}
		all = append(all, s)
	}
	all[0].Maps[restMap] = restSpec(all[0].Maps["counters"])
	return &specs{abi: all[0], programs: all[1:]}, nil
}

// all returns every object, the ABI first.
func (s *specs) all() []*ebpf.CollectionSpec {
	return append([]*ebpf.CollectionSpec{s.abi}, s.programs...)
}

// maps returns each map once.
func (s *specs) maps() map[string]*ebpf.MapSpec {
	maps := map[string]*ebpf.MapSpec{}
	for _, c := range s.all() {
		for name, m := range c.Maps {
			if _, ok := maps[name]; !ok {
				maps[name] = m
			}
		}
	}
	return maps
}

// ruleMaps are one thing: an index in one of them means an entry in another, and
// runs hold such an index.
func (s *specs) ruleMaps() []string {
	names := []string{"runs", "inbound", "port_sets"}
	for name, m := range s.maps() {
		if m.InnerMap != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
