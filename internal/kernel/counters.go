package kernel

import "fmt"

// Counters are exact: they count also what no event could tell.
type Counters struct {
	Refused     map[string]uint64 // by reason; reasons that did not occur are absent
	LostLife    uint64            // events of exec and exit that found their ring full
	LostDenials uint64            // events of refusals that found theirs full
	Flows       uint64            // destinations that a rule allowed and that were sent to
	FlowsUntold uint64            // of them, those that TakeFlows does not tell
	Forked      uint64            // processes started
	Executed    uint64            // programs executed
	Exited      uint64            // processes ended
}

// Total is how often the run was refused something.
func (c Counters) Total() uint64 {
	var n uint64
	for _, v := range c.Refused {
		n += v
	}
	return n
}

// Lost is how many events found their ring full.
func (c Counters) Lost() uint64 { return c.LostLife + c.LostDenials }

// Counters returns the counters of a live run.
func (k *Kernel) Counters(cgroupID uint64) (Counters, error) {
	var perCPU []abiVarvelCounters
	if err := k.objects.maps["counters"].Lookup(cgroupID, &perCPU); err != nil {
		return Counters{}, fmt.Errorf("read the counters of a run: %w", err)
	}
	return k.sum(perCPU), nil
}

// Strays returns the counters of all cgroups below those of runs that are no
// run's: what was refused to them, since the programs were loaded.
func (k *Kernel) Strays() (Counters, error) {
	var perCPU []abiVarvelCounters
	if err := k.objects.maps["strays"].Lookup(uint32(0), &perCPU); err != nil {
		return Counters{}, fmt.Errorf("read the counters of unknown cgroups: %w", err)
	}
	return k.sum(perCPU), nil
}

func (k *Kernel) sum(perCPU []abiVarvelCounters) Counters {
	out := Counters{Refused: map[string]uint64{}}
	for _, c := range perCPU {
		out.LostLife += c.Lost[abiVarvelClassCLASS_LIFE]
		out.LostDenials += c.Lost[abiVarvelClassCLASS_DENIAL]
		out.Flows += c.Flows
		out.FlowsUntold += c.FlowsUntold
		out.Forked += c.Forked
		out.Executed += c.Executed
		out.Exited += c.Exited
		for i, n := range c.Refused {
			if n > 0 {
				out.Refused[textOf(k.objects.reasons, uint8(i))] += n
			}
		}
	}
	return out
}
