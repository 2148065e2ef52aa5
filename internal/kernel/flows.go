package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
)

// Flow is a destination that a run has reached by a rule, or a peer that has
// come to it.
type Flow struct {
	CgroupID uint64
	To       netip.AddrPort // inbound: the peer's address, and the port of the run
	Inbound  bool           // the peer has come to the run
	Protocol uint8          // IANA number
	Count    uint64         // sockets that began to send there since it was last told, or began again
	First    time.Duration  // since boot, CLOCK_BOOTTIME
	Last     time.Duration
}

// flowBatch is how many flows are read at once.
const flowBatch = 4096

// TakeFlows returns what was reached since it was last called, and forgets it. A
// flow that is counted at that very moment may be missing its last count; the
// counters of the run have it.
func (k *Kernel) TakeFlows() ([]Flow, error) {
	keys, values := make([]abiVarvelFlowKey, flowBatch), make([]abiVarvelFlow, flowBatch)
	var all []Flow
	for cursor := new(ebpf.MapBatchCursor); ; {
		n, err := k.objects.maps["flows"].BatchLookupAndDelete(cursor, keys, values, nil)
		for i := range n {
			all = append(all, flowOf(&keys[i], &values[i]))
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return all, nil
		}
		if err != nil {
			return all, fmt.Errorf("read what runs have reached: %w", err)
		}
	}
}

func flowOf(k *abiVarvelFlowKey, v *abiVarvelFlow) Flow {
	return Flow{
		CgroupID: k.Run, To: netip.AddrPortFrom(k.Address.addr(), k.Port), Inbound: k.Inbound != 0, Protocol: k.Protocol,
		Count: v.Count, First: time.Duration(v.First), Last: time.Duration(v.Last),
	}
}
