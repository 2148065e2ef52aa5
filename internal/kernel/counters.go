package kernel

import "fmt"

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
	var perCPU []abiVarvelCounters
	if err := k.objects.maps["counters"].Lookup(cgroupID, &perCPU); err != nil {
		return Counters{}, fmt.Errorf("read the counters of a run: %w", err)
	}
	out := Counters{Refused: map[string]uint64{}}
	for _, c := range perCPU {
		out.Lost += c.Lost
		out.Forked += c.Forked
		out.Executed += c.Executed
		out.Exited += c.Exited
		for i, n := range c.Refused {
			if n > 0 {
				out.Refused[textOf(k.objects.reasons, uint8(i))] += n
			}
		}
	}
	return out, nil
}
