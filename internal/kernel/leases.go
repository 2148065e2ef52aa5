package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/ruleset"
)

// Lease is the right of a run to reach a real address directly, for a while.
type Lease struct {
	Address  netip.AddrPort
	Protocol ruleset.Protocol
	Expires  time.Duration // since boot, CLOCK_BOOTTIME
}

// leaseTable holds the keys of the leases map: by run and address, so that the
// last port of an address takes the mark of the address with it. The zero value
// is ready to use.
type leaseTable map[uint64]map[abiVarvelAddress]map[abiVarvelNameKey]struct{}

func (t *leaseTable) add(key abiVarvelNameKey) {
	if *t == nil {
		*t = leaseTable{}
	}
	if (*t)[key.Run] == nil {
		(*t)[key.Run] = map[abiVarvelAddress]map[abiVarvelNameKey]struct{}{}
	}
	keys := (*t)[key.Run][key.Address]
	if keys == nil {
		keys = map[abiVarvelNameKey]struct{}{}
		(*t)[key.Run][key.Address] = keys
	}
	keys[key] = struct{}{}
}

// Lease lets a run reach an address directly at the given ports until d from now
// has passed; a lease that is there already is replaced. What it has opened goes
// on after that. Returns an error that wraps ErrFull if the table has no room.
func (k *Kernel) Lease(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange, d time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.runs[cgroupID]; !ok {
		return ErrUnknownRun
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	value := abiVarvelLease{Expires: uint64(now + max(d, 0))}
	for _, key := range append(leaseKeys(cgroupID, addr, ports), leaseMark(cgroupID, addr)) {
		if err := k.objects.maps["leases"].Put(&key, &value); err != nil {
			return fmt.Errorf("lease an address: %w", full(err, "leases"))
		}
		k.leases.add(key)
	}
	return nil
}

// Withdraw ends leases of an address at once, also for what they have opened:
// open connections are refused at their next packet.
func (k *Kernel) Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return errors.Join(k.withdraw(cgroupID, addr, ports), k.bumpGeneration())
}

// withdraw takes leases out of the table. The caller locks.
func (k *Kernel) withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error {
	keys := k.leases[cgroupID][address(addr)]
	var errs []error
	for _, key := range leaseKeys(cgroupID, addr, ports) {
		errs = append(errs, absent(k.objects.maps["leases"].Delete(&key)))
		delete(keys, key)
	}
	if mark := leaseMark(cgroupID, addr); len(keys) == 1 {
		errs = append(errs, absent(k.objects.maps["leases"].Delete(&mark)))
		delete(k.leases[cgroupID], mark.Address)
	}
	return errors.Join(errs...)
}

// Leases returns what a run was leased, as the kernel has it, expired ones too.
func (k *Kernel) Leases(cgroupID uint64) ([]Lease, error) {
	var all []Lease
	var key abiVarvelNameKey
	var value abiVarvelLease
	entries := k.objects.maps["leases"].Iterate()
	for entries.Next(&key, &value) {
		if key.Run != cgroupID || key.Protocol == 0 {
			continue
		}
		all = append(all, Lease{
			Address:  netip.AddrPortFrom(key.Address.addr(), key.Port),
			Protocol: ruleset.Protocol(key.Protocol), Expires: time.Duration(value.Expires),
		})
	}
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("list the leases of a run: %w", err)
	}
	return all, nil
}

// Leased reports whether a run was leased an address and port, and the lease was not
// withdrawn. It may have expired: what it has opened goes on.
func (k *Kernel) Leased(cgroupID uint64, to netip.AddrPort, protocol ruleset.Protocol) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := address(to.Addr())
	_, ok := k.leases[cgroupID][a][abiVarvelNameKey{Run: cgroupID, Address: a, Port: to.Port(), Protocol: uint8(protocol)}]
	return ok
}

// dropLeases takes away what a run was leased. The caller locks.
func (k *Kernel) dropLeases(cgroupID uint64) error {
	var errs []error
	for _, keys := range k.leases[cgroupID] {
		for key := range keys {
			errs = append(errs, absent(k.objects.maps["leases"].Delete(&key)))
		}
	}
	delete(k.leases, cgroupID)
	return errors.Join(errs...)
}

func leaseKeys(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) []abiVarvelNameKey {
	var keys []abiVarvelNameKey
	for _, r := range ports {
		for port := int(r.First); port <= int(r.Last); port++ {
			keys = append(keys, abiVarvelNameKey{
				Run: cgroupID, Address: address(addr), Port: uint16(port), Protocol: uint8(r.Protocol),
			})
		}
	}
	return keys
}

// leaseMark is the entry that says that an address was handed out at all.
func leaseMark(cgroupID uint64, addr netip.Addr) abiVarvelNameKey {
	return abiVarvelNameKey{Run: cgroupID, Address: address(addr)}
}

// sinceBoot is the clock that the programs read (bpf_ktime_get_boot_ns).
func sinceBoot() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read the clock since boot: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// RestoreLeases learns from the map what runs were leased by an earlier daemon,
// whose maps are used again. Entries of runs that are not known are removed.
func (k *Kernel) RestoreLeases() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var key abiVarvelNameKey
	var value abiVarvelLease
	var orphans []abiVarvelNameKey
	entries := k.objects.maps["leases"].Iterate()
	for entries.Next(&key, &value) {
		if _, ok := k.runs[key.Run]; ok {
			k.leases.add(key)
		} else {
			orphans = append(orphans, key)
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("list the leases of all runs: %w", err)
	}
	var errs []error
	for i := range orphans {
		errs = append(errs, absent(k.objects.maps["leases"].Delete(&orphans[i])))
	}
	return errors.Join(errs...)
}
