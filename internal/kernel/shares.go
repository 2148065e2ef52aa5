package kernel

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// shareOf is how many entries of a table a run may have: an eighth, so that no run
// fills it for all.
func (k *Kernel) shareOf(table string) int {
	return int(k.objects.maps[table].MaxEntries()) / int(abiVarvelLimitsLIMIT_SHARE)
}

// newShare makes the count of a run's redirected sockets, unless it is there.
func (k *Kernel) newShare(cgroupID uint64) error {
	share := abiVarvelShare{Limit: int32(k.shareOf("redirects"))}
	err := k.objects.maps["shares"].Update(cgroupID, share, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("make the share of the run: %w", full(err, "runs"))
	}
	return nil
}

// Redirected returns how many redirected sockets a run has open, and how many it may.
func (k *Kernel) Redirected(cgroupID uint64) (open, limit int, err error) {
	var share abiVarvelShare
	if err := k.objects.maps["shares"].Lookup(cgroupID, &share); err != nil {
		return 0, 0, fmt.Errorf("read the share of a run: %w", err)
	}
	return int(max(share.Redirects, 0)), int(share.Limit), nil
}

// probeRun is the run of entries that only find out whether there is room. No cgroup
// has this number.
const probeRun = ^uint64(0)

// FullTables returns the tables that have no room for another entry, found out by
// trying: what a count says can be wrong, what the kernel does can't.
func (k *Kernel) FullTables() ([]string, error) {
	var found []string
	var errs []error
	for _, p := range []struct {
		table      string
		key, value any
	}{
		{"runs", probeRun, abiVarvelRun{}},
		{"names", &abiVarvelNameKey{Run: probeRun}, uint32(1)},
		{"leases", &abiVarvelNameKey{Run: probeRun}, &abiVarvelLease{}},
		{"redirects", &abiVarvelRedirectKey{}, &abiVarvelOrigin{Run: probeRun}},
	} {
		m := k.objects.maps[p.table]
		switch err := full(m.Put(p.key, p.value), p.table); {
		case errors.Is(err, ErrFull):
			found = append(found, p.table)
		case err != nil:
			errs = append(errs, fmt.Errorf("find out whether there is room: %s: %w", p.table, err))
		default:
			errs = append(errs, absent(m.Delete(p.key)))
		}
	}
	return found, errors.Join(errs...)
}
