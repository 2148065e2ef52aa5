package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/varvel/varvel/internal/workload"
)

// findAttached finds what lives without pins: links that somebody holds, by where
// they are attached, and maps, by the programs that use them. So a keeper that
// holds Anchors need not give them back, and a program is never attached twice.
func (o *held) findAttached(cfg Config) error {
	if err := o.findCgroupLinks(cfg); err != nil {
		return err
	}
	if err := o.findMaps(); err != nil {
		return err
	}
	return o.findStubs(cfg)
}

// eachLink gives every link of the machine; handle says whether it keeps it.
func eachLink(handle func(link.Link, *link.Info) (keep bool, err error)) error {
	var it link.Iterator
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			continue // a kind that the library does not know is not ours
		}
		keep, err := handle(it.Link, info)
		if err != nil {
			return err
		}
		if keep {
			it.Take()
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("look for attached programs: %w", err)
	}
	return nil
}

// missing are the hooks without a link, on cgroups or on tracepoints.
func (o *held) missing(cfg Config, tracepoints bool) []hook {
	return slices.DeleteFunc(cfg.hooks(), func(h hook) bool {
		return o.links[h.program] != nil || (h.cgroup == "") != tracepoints
	})
}

func (o *held) findCgroupLinks(cfg Config) error {
	missing := o.missing(cfg, false)
	if len(missing) == 0 {
		return nil
	}
	ids := map[string]uint64{}
	for _, path := range []string{cfg.Runs, cfg.Daemon} {
		id, err := workload.Inode(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		ids[path] = id
	}
	return eachLink(func(l link.Link, info *link.Info) (bool, error) {
		cg := info.Cgroup()
		if cg == nil {
			return false, nil
		}
		for _, h := range missing {
			if cg.CgroupId != ids[h.cgroup] || uint32(cg.AttachType) != uint32(h.attach) || o.links[h.program] != nil {
				continue
			}
			if name, _, err := programOfLink(info); err == nil && isNamed(h.program, name) {
				o.links[h.program] = l
				o.unpinned = append(o.unpinned, linkPin(h.program))
				return true, nil
			}
		}
		return false, nil
	})
}

// findMaps takes the maps that the programs of the links use.
func (o *held) findMaps() error {
	for _, l := range o.links {
		info, err := l.Info()
		if err != nil {
			return fmt.Errorf("look at a link: %w", err)
		}
		_, ids, err := programOfLink(info)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := o.findMap(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *held) findMap(id ebpf.MapID) error {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return fmt.Errorf("open a map of an attached program: %w", err)
	}
	info, err := m.Info()
	if err != nil || o.maps[info.Name] != nil {
		return errors.Join(err, m.Close())
	}
	o.maps[info.Name] = m
	o.unpinned = append(o.unpinned, mapPin(info.Name))
	return nil
}

// findStubs finds our stubs among those of the machine: what their slots call
// works with our runs. A stub whose slot is empty does nothing and may be anybody's.
func (o *held) findStubs(cfg Config) error {
	missing := o.missing(cfg, true)
	if len(missing) == 0 || o.maps["runs"] == nil {
		return nil
	}
	runs, err := mapID(o.maps["runs"])
	if err != nil {
		return err
	}
	return eachLink(func(l link.Link, info *link.Info) (bool, error) {
		name, ids, err := programOfLink(info)
		if err != nil {
			return false, nil // it has ended meanwhile
		}
		for _, h := range missing {
			if !isNamed(h.program, name) || o.links[h.program] != nil || !slices.ContainsFunc(ids, func(slot ebpf.MapID) bool {
				return callsUserOf(slot, runs)
			}) {
				continue
			}
			o.links[h.program] = l
			o.unpinned = append(o.unpinned, linkPin(h.program))
			for _, id := range ids {
				if err := o.findMap(id); err != nil {
					return true, err
				}
			}
			return true, nil
		}
		return false, nil
	})
}

// callsUserOf says whether the program in a slot uses a map.
func callsUserOf(slot, used ebpf.MapID) bool {
	m, err := ebpf.NewMapFromID(slot)
	if err != nil {
		return false
	}
	defer m.Close()
	var p *ebpf.Program
	if m.Type() != ebpf.ProgramArray || m.Lookup(uint32(0), &p) != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return false
	}
	ids, _ := info.MapIDs()
	return slices.Contains(ids, used)
}

// programOfLink returns the name of an attached program, perhaps cut off, and the
// maps that it uses.
func programOfLink(info *link.Info) (string, []ebpf.MapID, error) {
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return "", nil, fmt.Errorf("open an attached program: %w", err)
	}
	defer p.Close()
	pi, err := p.Info()
	if err != nil {
		return "", nil, fmt.Errorf("look at an attached program: %w", err)
	}
	ids, _ := pi.MapIDs()
	return pi.Name, ids, nil
}

// isNamed knows a program also by what the kernel keeps of its name
// (BPF_OBJ_NAME_LEN is 16).
func isNamed(program, name string) bool {
	return name == program || name == program[:min(len(program), 15)]
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel does not tell the number of a map")
	}
	return id, nil
}
