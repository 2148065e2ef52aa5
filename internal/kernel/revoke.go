package kernel

import (
	"errors"
	"fmt"
)

// Revoke takes from a run its rule set, names, leases and what its listen grants, and ends observe mode. What
// is left to it is what every run has: itself, the endpoint and the name
// server. Open connections are refused at their next packet.
func (k *Kernel) Revoke(cgroupID uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old, ok := k.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	nothing := abiVarvelRun{Flags: old.Flags & noDoors}
	if err := k.objects.maps["runs"].Put(cgroupID, nothing); err != nil {
		return fmt.Errorf("take the run's rules away: %w", err)
	}
	k.runs[cgroupID] = nothing
	k.sets.release(old.Ruleset)
	return errors.Join(k.dropNames(cgroupID), k.dropLeases(cgroupID), k.dropListen(cgroupID), k.bumpGeneration())
}

// dropNames forgets all names of a run. The caller holds the lock.
func (k *Kernel) dropNames(cgroupID uint64) error {
	var errs []error
	for i := range k.names[cgroupID] {
		errs = append(errs, absent(k.objects.maps["names"].Delete(&k.names[cgroupID][i])))
	}
	delete(k.names, cgroupID)
	return errors.Join(errs...)
}
