package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// ErrUnknownRun is returned for a cgroup that AddRun was not called for.
var ErrUnknownRun = errors.New("no such run in the kernel")

// AddRun makes a run known by the id of its cgroup. Until UseRuleSet it may
// reach nothing but the endpoint, the name server and itself. Of a run that is
// known already, such as an adopted one, it changes only the mode.
func (k *Kernel) AddRun(cgroupID uint64, observe bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r, ok := k.runs[cgroupID]; ok {
		return k.setMode(cgroupID, r, observe)
	}
	if err := patiently(func() error { return k.objects.maps["counters"].Put(cgroupID, noCounters()) }); err != nil {
		return fmt.Errorf("make the counters of the run: %w", full(err, "runs"))
	}
	r := abiVarvelRun{Flags: flagsOf(observe)}
	err := k.newShare(cgroupID)
	if err == nil {
		if err = k.objects.maps["runs"].Put(cgroupID, r); err != nil {
			err = fmt.Errorf("make the run known to the kernel: %w", full(err, "runs"))
		}
	}
	if err != nil {
		return errors.Join(err, k.objects.maps["counters"].Delete(cgroupID), absent(k.objects.maps["shares"].Delete(cgroupID)))
	}
	k.runs[cgroupID] = r
	return nil
}

func flagsOf(observe bool) uint32 {
	if observe {
		return uint32(abiVarvelRunFlagsRUN_OBSERVE)
	}
	return 0
}

func (k *Kernel) setMode(cgroupID uint64, r abiVarvelRun, observe bool) error {
	flags := r.Flags&noDoors | flagsOf(observe)
	if r.Flags == flags {
		return nil
	}
	r.Flags = flags
	if err := k.objects.maps["runs"].Put(cgroupID, r); err != nil {
		return fmt.Errorf("change the run's mode: %w", err)
	}
	k.runs[cgroupID] = r
	return k.bumpGeneration()
}

// RemoveRun takes away all that the kernel holds of a run. A process that is
// still in its cgroup is refused everything from now on.
func (k *Kernel) RemoveRun(cgroupID uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.runs[cgroupID]
	if !ok {
		return nil
	}
	delete(k.runs, cgroupID)
	errs := []error{
		k.objects.maps["runs"].Delete(cgroupID), absent(k.objects.maps[restMap].Delete(cgroupID)),
		absent(k.objects.maps["shares"].Delete(cgroupID)), k.dropNames(cgroupID), k.dropLeases(cgroupID), k.dropListen(cgroupID),
	}
	k.sets.release(r.Ruleset)
	return errors.Join(append(errs, k.objects.maps["counters"].Delete(cgroupID), k.bumpGeneration())...)
}

// LoadRuleSet makes a rule set ready for use. Loading one that is loaded does
// nothing.
func (k *Kernel) LoadRuleSet(rs *ruleset.RuleSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sets.load(rs)
}

// UseRuleSet gives a run another rule set, at once for every new connection, and
// has its open ones judged anew at their next packet. A rule set that no run
// has used for a while is unloaded when another is loaded.
func (k *Kernel) UseRuleSet(cgroupID uint64, id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old, err := k.useRuleSet(cgroupID, id)
	if err != nil || old == same {
		return err
	}
	if err := k.bumpGeneration(); err != nil {
		return err // open sockets may have the old one, so it is not given up
	}
	k.sets.release(old)
	return nil
}

// same is what useRuleSet returns if the run has the rule set already. No rule set
// has this index.
const same = ^uint32(0)

// useRuleSet gives a run another rule set and returns the index of the old one, which
// the caller releases after the open sockets were judged anew. The caller locks.
func (k *Kernel) useRuleSet(cgroupID uint64, id string) (uint32, error) {
	r, ok := k.runs[cgroupID]
	if !ok {
		return 0, ErrUnknownRun
	}
	set, err := k.sets.acquire(id)
	if err != nil {
		return 0, err
	}
	if r.Ruleset == set.index {
		k.sets.release(set.index)
		return same, nil
	}
	old := r.Ruleset
	r.Ruleset, r.Ranges4 = set.index, set.block
	if err := k.objects.maps["runs"].Put(cgroupID, r); err != nil {
		k.sets.release(set.index)
		return 0, fmt.Errorf("switch the run's rule set: %w", err)
	}
	k.runs[cgroupID] = r
	return old, nil
}

// AllowName lets a run connect to a synthetic address over TCP, at the given
// ports. Repeating it is harmless. Returns an error that wraps ErrShare if the run has
// its share of the table, and one that wraps ErrFull if all runs together have filled it.
func (k *Kernel) AllowName(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.runs[cgroupID]; !ok {
		return ErrUnknownRun
	}
	for _, r := range ports {
		for port := int(r.First); port <= int(r.Last); port++ {
			key := abiVarvelNameKey{Run: cgroupID, Address: address(addr), Port: uint16(port), Protocol: uint8(r.Protocol)}
			if err := k.allowName(cgroupID, key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k *Kernel) allowName(cgroupID uint64, key abiVarvelNameKey) error {
	if share := k.shareOf("names"); len(k.names[cgroupID]) >= share {
		var there uint32
		if k.objects.maps["names"].Lookup(&key, &there) != nil {
			return fmt.Errorf("allow a name: %w: %d ports of names", ErrShare, share)
		}
		return nil
	}
	err := k.objects.maps["names"].Update(&key, uint32(1), ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("allow a name: %w", full(err, "names"))
	}
	k.names[cgroupID] = append(k.names[cgroupID], key)
	return nil
}

// PruneNames withdraws the names of a run that keep does not want any more.
// Connections to them are refused, and open ones are cut at their next packet.
func (k *Kernel) PruneNames(cgroupID uint64, keep func(netip.AddrPort) bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	gone, err := k.pruneNames(cgroupID, keep)
	if gone > 0 {
		err = errors.Join(err, k.bumpGeneration())
	}
	return err
}

// pruneNames returns how many it has withdrawn. The caller locks.
func (k *Kernel) pruneNames(cgroupID uint64, keep func(netip.AddrPort) bool) (int, error) {
	var errs []error
	var kept []abiVarvelNameKey
	for _, key := range k.names[cgroupID] {
		if keep(netip.AddrPortFrom(key.Address.addr(), key.Port)) {
			kept = append(kept, key)
			continue
		}
		errs = append(errs, absent(k.objects.maps["names"].Delete(&key)))
	}
	if len(errs) > 0 {
		k.names[cgroupID] = kept
	}
	return len(errs), errors.Join(errs...)
}
