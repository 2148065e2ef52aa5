package kernel

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
)

// objects is all that was loaded: maps that the programs share, and programs by
// the names they have in C.
type objects struct {
	maps     map[string]*ebpf.Map
	programs map[string]*ebpf.Program
	reasons  []string // text of each enum varvel_reason
	hooks    []string // text of each enum varvel_hook
}

// loadObjects loads maps first, then the programs that use them. Maps that are
// given take the place of those it would make; they are its own from now on.
func loadObjects(s *specs, given map[string]*ebpf.Map) (_ *objects, err error) {
	o := &objects{maps: map[string]*ebpf.Map{}, programs: map[string]*ebpf.Program{}}
	maps.Copy(o.maps, given)
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if o.reasons, err = enumTexts(s.abi.Types, "varvel_reason", "REASON_"); err != nil {
		return nil, err
	}
	if o.hooks, err = enumTexts(s.abi.Types, "varvel_hook", "HOOK_"); err != nil {
		return nil, err
	}
	for _, c := range s.all() {
		if err := o.load(c); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// load loads one object. Maps that exist already take the place of its own.
func (o *objects) load(spec *ebpf.CollectionSpec) error {
	shared := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m, ok := o.maps[name]; ok {
			shared[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return explainLoad(err)
	}
	for name, m := range c.Maps {
		if _, ok := shared[name]; ok {
			m.Close() // a duplicate of ours
			continue
		}
		o.maps[name] = m
	}
	maps.Copy(o.programs, c.Programs)
	return nil
}

func (o *objects) close() {
	for _, p := range o.programs {
		p.Close()
	}
	for _, m := range o.maps {
		m.Close()
	}
}

// explainLoad turns a refusal of the kernel into a sentence. cilium/ebpf guesses
// that EPERM means a memory lock limit; here it has been raised before.
func explainLoad(err error) error {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel refuses Varvel's programs; Linux 6.1 or newer with BTF is needed: %w", err)
	}
	return fmt.Errorf("load Varvel's programs into the kernel (CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed): %w", err)
}

// enumTexts returns the texts of a C enum that counts from 0: REASON_NO_RULE
// becomes no-rule.
func enumTexts(types *btf.Spec, name, prefix string) ([]string, error) {
	var enum *btf.Enum
	if err := types.TypeByName(name, &enum); err != nil {
		return nil, fmt.Errorf("the built-in objects lack %s: %w", name, err)
	}
	texts := make([]string, len(enum.Values))
	for _, v := range enum.Values {
		if v.Value >= uint64(len(texts)) {
			return nil, fmt.Errorf("%s does not count from 0", name)
		}
		text := strings.TrimPrefix(v.Name, prefix)
		texts[v.Value] = strings.ReplaceAll(strings.ToLower(text), "_", "-")
	}
	return texts, nil
}
