package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/hostnet"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// adopt measures what a new daemon waits for before it knows the runs of the
// earlier one and has its own programs in their place.
func adopt(ctx context.Context, s *site, _ names) ([]Result, error) {
	k, err := s.openKernel()
	if err != nil {
		return nil, err
	}
	s.OnClose(func() error { return s.closeKernel(k) })
	count := 1000
	if s.options.Quick {
		count = 50
	}
	for i := range count {
		if err := s.addNamedRun(k, i); err != nil {
			return nil, err
		}
	}
	series, err := interleave(ctx, s.rounds(20), []side{{"adopt", func(int) ([]float64, error) {
		k.Close()
		begin := time.Now()
		opened, err := s.openKernel()
		if err != nil {
			return nil, err
		}
		k = opened
		if n := len(k.Runs()); n != count {
			return nil, fmt.Errorf("%d of %d runs were adopted", n, count)
		}
		return []float64{float64(time.Since(begin).Microseconds()) / 1000}, nil
	}}})
	if err != nil {
		return nil, err
	}
	r := alone("adopt_1000", "ms", series["adopt"][0])
	r.Note = fmt.Sprintf("%d runs, ten rule sets, two names a run; programs loaded and put into force", count)
	return []Result{r}, nil
}

// addNamedRun makes a run without processes, with one of ten rule sets and two names.
func (s *site) addNamedRun(k *kernel.Kernel, i int) error {
	dir, id, err := s.cgroups.Create(fmt.Sprint("run_", i))
	if err != nil {
		return err
	}
	s.OnClose(func() error { return workload.Remove(dir) })
	tcp := func(port int) []ruleset.PortRange {
		return []ruleset.PortRange{{First: uint16(port), Last: uint16(port), Protocol: ruleset.TCP}}
	}
	rules, err := ruleset.Compile([]ruleset.Rule{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Ports: tcp(1000 + i%10)}})
	if err != nil {
		return err
	}
	err = errors.Join(k.AddRun(id, false), k.LoadRuleSet(rules), k.UseRuleSet(id, rules.ID))
	for j := range 2 {
		err = errors.Join(err, k.AllowName(id, netip.AddrFrom4([4]byte{198, 18, byte(i), byte(2*(i>>8) + j)}), tcp(443)))
	}
	return err
}

// destroys measures how long a run's connections live after the decision to end
// them: to the moment at which the last of their peers has its reset.
func destroys(ctx context.Context, s *site, want names) ([]Result, error) {
	k, err := s.openKernel()
	if err != nil {
		return nil, err
	}
	s.OnClose(func() error { return s.closeKernel(k) })
	p, err := acceptPeers(ctx)
	if err != nil {
		return nil, err
	}
	rules, err := ruleset.Compile([]ruleset.Rule{{
		Prefix: netip.MustParsePrefix(nodeAddress + "/32"), Ports: []ruleset.PortRange{{First: 1, Last: 65535, Protocol: ruleset.TCP}},
	}})
	if err != nil {
		return nil, err
	}
	dir, id, err := s.governed(k, "run_cut", rules)
	if err != nil {
		return nil, err
	}
	holder, err := s.worker(ctx, dir)
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, n := range []int{1, 100, 5000} {
		figure := fmt.Sprint("destroy_", n)
		if !want[figure] {
			continue
		}
		series, err := interleave(ctx, s.rounds(20), []side{{figure, func(int) ([]float64, error) { return p.cut(ctx, holder, id, n) }}})
		if err != nil {
			return results, err
		}
		r := alone(figure, "ms", series[figure][0])
		r.Note = fmt.Sprintf("%d TCP connections of one run; from the call until the last peer has its reset; the call alone %s ms; slowest round %s ms",
			n, digits(median(series[figure][1])), digits(quantile(series[figure][0], 1)))
		results = append(results, r)
	}
	return results, nil
}

// cut has the holder open n connections and destroys them. The figures are milliseconds:
// until the last peer has its reset, and until the call has returned.
func (p *peers) cut(ctx context.Context, holder *process, cgroup uint64, n int) ([]float64, error) {
	if _, err := holder.Ask(order{Op: "hold", Address: p.address, N: n}); err != nil {
		return nil, err
	}
	if err := p.await(ctx, p.opened, n); err != nil {
		return nil, err
	}
	begin := time.Now()
	cut, err := hostnet.Cut(cgroup, func(hostnet.Socket) bool { return true })
	if err == nil && cut != n {
		err = fmt.Errorf("%d of %d connections were destroyed", cut, n)
	}
	call := time.Since(begin)
	err = errors.Join(err, p.await(ctx, p.reset, n))
	took := time.Since(begin)
	if err != nil {
		return nil, err
	}
	_, err = holder.Ask(order{Op: "drop"})
	return []float64{float64(took.Microseconds()) / 1000, float64(call.Microseconds()) / 1000}, err
}
