package kernel

import (
	"errors"
	"fmt"

	"github.com/varvel/varvel/internal/ruleset"
)

// UseListen says who may reach which ports that a run listens on, at once for
// every new connection and datagram; connections that are open are judged anew
// when they are next answered. The prefixes of the rule set are those of peers,
// its ports are the run's. Without it, or with an empty one, nobody may.
func (k *Kernel) UseListen(cgroupID uint64, rs *ruleset.RuleSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, ok := k.runs[cgroupID]
	if !ok {
		return ErrUnknownRun
	}
	old, had := k.grants[cgroupID]
	if len(rs.Entries) == 0 {
		if !had {
			return nil
		}
		return errors.Join(k.dropListen(cgroupID), k.bumpGeneration())
	}
	if err := k.sets.load(rs); err != nil {
		return err
	}
	set, err := k.sets.acquire(rs.ID)
	if err != nil {
		return err
	}
	grants := abiVarvelRun{Ruleset: set.index, Flags: r.Flags, Ranges4: set.block}
	if err := k.objects.maps["inbound"].Put(cgroupID, grants); err != nil {
		k.sets.release(set.index)
		return fmt.Errorf("switch what the run's listen grants: %w", full(err, "runs"))
	}
	if had {
		k.sets.release(old.Ruleset)
	}
	k.grants[cgroupID] = grants
	return k.bumpGeneration()
}

// dropListen takes back all that a run's listen grants. The caller holds the lock.
func (k *Kernel) dropListen(cgroupID uint64) error {
	grants, ok := k.grants[cgroupID]
	if !ok {
		return nil
	}
	delete(k.grants, cgroupID)
	err := absent(k.objects.maps["inbound"].Delete(cgroupID))
	k.sets.release(grants.Ruleset)
	return err
}
