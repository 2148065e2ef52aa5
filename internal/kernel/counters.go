package kernel

import (
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
)

// Counters are exact: they count also what no event could tell.
type Counters struct {
	Refused  map[string]uint64 // by reason; reasons that did not occur are absent
	Lost     uint64            // events that found the ring full
	Forked   uint64            // processes started
	Executed uint64            // programs executed
	Exited   uint64            // processes ended
}

// Total is how often the run was refused something.
func (c Counters) Total() uint64 {
	var n uint64
	for _, v := range c.Refused {
		n += v
	}
	return n
}

// Counters returns the counters of a live run.
func (k *Kernel) Counters(cgroupID uint64) (Counters, error) {
	c, err := readCounters(k.objects.maps["counters"], cgroupID, k.objects.reasons)
	if err != nil {
		return Counters{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if rest, ok := k.carried[cgroupID]; ok {
		return c.plus(rest), nil
	}
	return c, nil
}

func readCounters(m *ebpf.Map, cgroupID uint64, reasons []string) (Counters, error) {
	var perCPU []abiVarvelCounters
	if err := m.Lookup(cgroupID, &perCPU); err != nil {
		return Counters{}, fmt.Errorf("read the counters of a run: %w", err)
	}
	return sumCounters(perCPU, reasons), nil
}

func sumCounters(perCPU []abiVarvelCounters, reasons []string) Counters {
	out := Counters{Refused: map[string]uint64{}}
	for _, c := range perCPU {
		out.Lost += c.Lost
		out.Forked += c.Forked
		out.Executed += c.Executed
		out.Exited += c.Exited
		for i, n := range c.Refused {
			if n > 0 {
				out.Refused[textOf(reasons, uint8(i))] += n
			}
		}
	}
	return out
}

func (c Counters) plus(d Counters) Counters {
	out := Counters{
		Refused: maps.Clone(c.Refused), Lost: c.Lost + d.Lost,
		Forked: c.Forked + d.Forked, Executed: c.Executed + d.Executed, Exited: c.Exited + d.Exited,
	}
	for reason, n := range d.Refused {
		out.Refused[reason] += n
	}
	return out
}

// minus is what was counted since d.
func (c Counters) minus(d Counters) Counters {
	out := Counters{
		Refused: map[string]uint64{}, Lost: c.Lost - d.Lost,
		Forked: c.Forked - d.Forked, Executed: c.Executed - d.Executed, Exited: c.Exited - d.Exited,
	}
	for reason, n := range c.Refused {
		if n > d.Refused[reason] {
			out.Refused[reason] = n - d.Refused[reason]
		}
	}
	return out
}
