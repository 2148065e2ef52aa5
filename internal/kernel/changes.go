package kernel

import (
	"errors"
	"net/netip"

	"github.com/varvel/varvel/internal/ruleset"
)

// Changes are changes to what many runs may reach, such as those of a reload. New
// sockets are judged by each at once; all open ones are judged anew once, at End,
// instead of once for each change. Its methods may be used concurrently with those of
// Kernel, which do not wait for End: what Revoke takes away is gone when it returns.
type Changes struct {
	k       *Kernel
	left    []uint32 // rule sets that runs have given up; open sockets have them until End
	changed bool
}

// Begin begins changes. End has to be called, whatever happens in between.
func (k *Kernel) Begin() *Changes { return &Changes{k: k} }

// UseRuleSet is Kernel.UseRuleSet. A run that has the rule set already is not touched.
func (c *Changes) UseRuleSet(cgroupID uint64, id string) error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	old, err := c.k.useRuleSet(cgroupID, id)
	if err != nil || old == same {
		return err
	}
	c.left = append(c.left, old)
	c.changed = true
	return nil
}

// Withdraw is Kernel.Withdraw.
func (c *Changes) Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	c.changed = true
	return c.k.withdraw(cgroupID, addr, ports)
}

// PruneNames is Kernel.PruneNames.
func (c *Changes) PruneNames(cgroupID uint64, keep func(netip.AddrPort) bool) error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	gone, err := c.k.pruneNames(cgroupID, keep)
	c.changed = c.changed || gone > 0
	return err
}

// End has every open socket judged anew, if anything has changed. Rule sets are given
// up only then, because what is unloaded must be in no socket.
func (c *Changes) End() error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	var err error
	if c.changed {
		err = c.k.bumpGeneration()
	}
	if err != nil {
		return errors.Join(errors.New("open connections are not judged anew"), err)
	}
	for _, index := range c.left {
		c.k.sets.release(index)
	}
	c.left, c.changed = nil, false
	return nil
}
