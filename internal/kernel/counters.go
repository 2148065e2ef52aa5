package kernel

import (
	"errors"
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
)

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

// Nobody is the run of what belongs to none: sockets that an upgrade has lost or
// that were born outside, and cgroups that are no run's. No cgroup has this number.
const Nobody uint64 = 0

// countNobody makes the counters of nobody, unless they are there.
func (k *Kernel) countNobody() error {
	err := k.objects.maps["counters"].Update(Nobody, noCounters(), ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("make the counters of sockets without a run: %w", full(err, "runs"))
	}
	return nil
}

func noCounters() []abiVarvelCounters {
	return make([]abiVarvelCounters, ebpf.MustPossibleCPU())
}

// Counters returns the counters of a live run, and for 0 those of all that
// belongs to no run.
func (k *Kernel) Counters(cgroupID uint64) (Counters, error) {
	c, err := readCounters(k.objects.maps["counters"], cgroupID, k.objects.reasons)
	if err != nil {
		return Counters{}, err
	}
	rest, err := readRest(k.objects.maps[restMap], cgroupID)
	if err != nil {
		return Counters{}, err
	}
	return c.plus(sumCounters([]abiVarvelCounters{rest}, k.objects.reasons)), nil
}

// restMap keeps what old programs counted last, while their counters were copied
// into another layout. Only user space knows it; see adopter.countRest.
const restMap = "counted_rest"

// restSpec is the map of counters without CPUs.
func restSpec(counters *ebpf.MapSpec) *ebpf.MapSpec {
	rest := counters.Copy()
	rest.Name, rest.Type = restMap, ebpf.Hash
	return rest
}

// readRest is 0 for most runs.
func readRest(m *ebpf.Map, cgroupID uint64) (rest abiVarvelCounters, err error) {
	if err := absent(m.Lookup(cgroupID, &rest)); err != nil {
		return rest, fmt.Errorf("read the counters of a run: %w", err)
	}
	return rest, nil
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
		out.LostLife += c.Lost[abiVarvelClassCLASS_LIFE]
		out.LostDenials += c.Lost[abiVarvelClassCLASS_DENIAL]
		out.Flows += c.Flows
		out.FlowsUntold += c.FlowsUntold
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
		Refused: maps.Clone(c.Refused), LostLife: c.LostLife + d.LostLife, LostDenials: c.LostDenials + d.LostDenials,
		Flows: c.Flows + d.Flows, FlowsUntold: c.FlowsUntold + d.FlowsUntold,
		Forked: c.Forked + d.Forked, Executed: c.Executed + d.Executed, Exited: c.Exited + d.Exited,
	}
	for reason, n := range d.Refused {
		out.Refused[reason] += n
	}
	return out
}

// add adds what was counted from one reading to the next.
func (c *abiVarvelCounters) add(from, to []abiVarvelCounters) {
	one := func(sign uint64, all []abiVarvelCounters) {
		for _, d := range all {
			for i, n := range d.Refused {
				c.Refused[i] += sign * n
			}
			for i, n := range d.Lost {
				c.Lost[i] += sign * n
			}
			c.Flows += sign * d.Flows
			c.FlowsUntold += sign * d.FlowsUntold
			c.Forked += sign * d.Forked
			c.Executed += sign * d.Executed
			c.Exited += sign * d.Exited
		}
	}
	one(1, to)
	one(^uint64(0), from)
}
