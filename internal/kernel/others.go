package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// queryEffective asks for what is run, with what cgroups above have attached
// (BPF_F_QUERY_EFFECTIVE, include/uapi/linux/bpf.h).
const queryEffective = 1

// Other is a program of somebody else that is asked about what runs do, too.
type Other struct {
	ID     uint32
	Name   string // as its owner has called it
	Hook   string // "connect4" and so on
	Before bool   // it is asked before ours: we judge what it makes of an address
}

// hooks are those at which another program can change or refuse what a run may.
func hooks() []struct {
	name, program string
	attach        ebpf.AttachType
} {
	return []struct {
		name, program string
		attach        ebpf.AttachType
	}{
		{"connect4", "varvel_connect4", ebpf.AttachCGroupInet4Connect},
		{"connect6", "varvel_connect6", ebpf.AttachCGroupInet6Connect},
		{"sendmsg4", "varvel_sendmsg4", ebpf.AttachCGroupUDP4Sendmsg},
		{"sendmsg6", "varvel_sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
		{"egress", "varvel_egress", ebpf.AttachCGroupInetEgress},
		{"ingress", "", ebpf.AttachCGroupInetIngress}, // we have none
	}
}

// Others lists the programs of others on the runs' cgroup and those above it, in
// the order in which the kernel asks them.
func (k *Kernel) Others() ([]Other, error) {
	dir, err := os.Open(k.cfg.Runs)
	if err != nil {
		return nil, fmt.Errorf("look for other cgroup programs: %w", err)
	}
	defer dir.Close()
	var all []Other
	for _, h := range hooks() {
		q, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: h.attach, QueryFlags: queryEffective})
		if err != nil {
			return nil, fmt.Errorf("look for other cgroup programs at %s: %w", h.name, err)
		}
		var ids []ebpf.ProgramID
		for _, p := range q.Programs {
			ids = append(ids, p.ID)
		}
		found, err := k.othersOf(h.name, h.program, ids)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// othersOf picks them from the programs of one hook.
func (k *Kernel) othersOf(hook, ours string, ids []ebpf.ProgramID) ([]Other, error) {
	own := -1
	if p := k.objects.programs[ours]; p != nil {
		info, err := p.Info()
		if err != nil {
			return nil, fmt.Errorf("look at our own program: %w", err)
		}
		id, _ := info.ID()
		own = slices.Index(ids, id)
	}
	var found []Other
	for i, id := range ids {
		if i == own {
			continue
		}
		name, err := programName(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // taken away while we looked
		}
		if err != nil {
			return nil, err
		}
		found = append(found, Other{uint32(id), name, hook, i < own})
	}
	return found, nil
}

func programName(id ebpf.ProgramID) (string, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return "", fmt.Errorf("look at cgroup program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", fmt.Errorf("look at cgroup program %d: %w", id, err)
	}
	return info.Name, nil
}
