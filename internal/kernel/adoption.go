package kernel

import (
	"cmp"
	"net/netip"
	"slices"
)

// Adoption says what Open found in the kernel.
type Adoption struct {
	Adopted  bool     // there were programs of an earlier daemon
	Repaired []string // programs that were not attached any more, and are again
	Unpinned []string // pins that were missing, of what lived without them

	// Replaced names the maps whose layout differs in this build. They were made
	// anew and filled with what could be carried over.
	Replaced []string
	// SocketsLost: open sockets of the adopted runs belong to no run now. They are
	// refused, as no-run, and counted in Counters(0); sockets made from now on work.
	SocketsLost bool
	// RulesLost: the adopted runs have no rule set, and may reach no address, until
	// UseRuleSet.
	RulesLost bool
	// EventBytes were waiting in a ring of another layout, and are lost.
	EventBytes uint64
}

// Adoption says what Open found in the kernel.
func (k *Kernel) Adoption() Adoption { return k.adoption }

// Run is a run that the kernel knows.
type Run struct {
	CgroupID uint64
	Observe  bool
}

// Runs lists the runs that the kernel knows, by their cgroups. After Open these
// are the adopted ones: each is governed, by the rules that it had, until UseRuleSet
// or RemoveRun. AddRun need not be called for them; it would only set their mode.
func (k *Kernel) Runs() []Run {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Run
	for id, r := range k.runs {
		out = append(out, Run{id, r.Flags&uint32(abiVarvelRunFlagsRUN_OBSERVE) != 0})
	}
	slices.SortFunc(out, func(a, b Run) int { return cmp.Compare(a.CgroupID, b.CgroupID) })
	return out
}

// Names lists the synthetic addresses and ports that a run may connect to.
func (k *Kernel) Names(cgroupID uint64) []netip.AddrPort {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []netip.AddrPort
	for _, key := range k.names[cgroupID] {
		out = append(out, netip.AddrPortFrom(key.Address.addr(), key.Port))
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// Doors is where the programs redirect to: where the earlier daemon listened,
// until SetDoors.
func (k *Kernel) Doors() Doors {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Doors{k.node.Tcp4, k.node.Tcp6, k.node.Udp4, k.node.Udp6}
}
