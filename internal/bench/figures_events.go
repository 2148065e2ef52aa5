package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/workload"
)

// metricsAddress is where varveld tells its metrics unless told otherwise.
const metricsAddress = "127.0.0.1:9469"

// eventsLife lets a run execute programs as fast as it can, and sees that the
// daemon loses no event of it.
func eventsLife(ctx context.Context, s *site, _ names) ([]Result, error) {
	d, err := s.startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	inside, err := d.worker(ctx)
	if err != nil {
		return nil, err
	}
	series, err := interleave(ctx, s.rounds(10), []side{{"run", func(int) ([]float64, error) {
		return inside.Ask(order{Op: "exec_rate", N: s.rounds(1000)})
	}}})
	if err != nil {
		return nil, err
	}
	// The daemon looks at the counters once a second.
	time.Sleep(2 * time.Second)
	lost, err := metric(ctx, `varvel_events_lost_total{class="kernel"}`)
	if err != nil {
		return nil, err
	}
	perSecond := series["run"][0]
	for i := range perSecond {
		perSecond[i] *= 2
	}
	r := alone("events_life", "ev/s", perSecond)
	r.Note = fmt.Sprintf("exec and exit of true, as fast as one thread of a run can, with varveld recording them; %.0f events lost", lost)
	return []Result{r}, nil
}

// metric reads a sample of the daemon's metrics.
func metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the daemon has no metric %s", name)
}

// governed makes a run's cgroup with a rule set.
func (s *site) governed(k *kernel.Kernel, name string, rules *ruleset.RuleSet) (dir string, id uint64, err error) {
	if dir, id, err = s.cgroups.Create(name); err != nil {
		return "", 0, err
	}
	s.OnClose(func() error { return workload.Remove(dir) })
	return dir, id, errors.Join(k.AddRun(id, false), k.LoadRuleSet(rules), k.UseRuleSet(id, rules.ID))
}

// eventsLifeReader fills the ring while nobody reads it, and measures how fast it
// is read then.
func eventsLifeReader(ctx context.Context, s *site, _ names) ([]Result, error) {
	k, err := s.openKernel()
	if err != nil {
		return nil, err
	}
	s.OnClose(func() error { return s.closeKernel(k) })
	none, err := ruleset.Compile(nil)
	if err != nil {
		return nil, err
	}
	dir, id, err := s.governed(k, "run_events", none)
	if err != nil {
		return nil, err
	}
	w, err := s.worker(ctx, dir)
	if err != nil {
		return nil, err
	}
	execs := s.rounds(2000)
	series, err := interleave(ctx, s.rounds(5), []side{{"read", func(int) ([]float64, error) {
		if _, err := w.Ask(order{Op: "exec_rate", N: execs}); err != nil {
			return nil, err
		}
		// Events may be called once, so another reader adopts the ring.
		k.Close()
		opened, err := s.openKernel()
		if err != nil {
			return nil, err
		}
		k = opened
		return readAll(ctx, k, 2*execs)
	}}})
	if err != nil {
		return nil, err
	}
	c, err := k.Counters(id)
	if err != nil || c.Lost() != 0 {
		return nil, fmt.Errorf("%d events found the ring full: %w", c.Lost(), err)
	}
	r := alone("events_life_reader", "ev/s", series["read"][0])
	r.Note = fmt.Sprintf("%d events of exec and exit that wait in the ring, read and decoded, not recorded", 2*execs)
	return []Result{r}, nil
}

// readAll reads so many events. The figure is how many a second.
func readAll(ctx context.Context, k *kernel.Kernel, events int) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var begin, end time.Time
	got := 0
	err := k.Events(ctx, func(e kernel.Event) {
		if e.Kind != kernel.EventExec && e.Kind != kernel.EventExit {
			return
		}
		if got++; got == 1 {
			begin = time.Now()
		}
		if got == events {
			end = time.Now()
			cancel()
		}
	})
	if err == nil && got < events {
		err = fmt.Errorf("%d of %d events were read", got, events)
	}
	return []float64{float64(events-1) / end.Sub(begin).Seconds()}, err
}

// A quiet run is refused so many ports in each round, of which each has to be told.
const (
	refusedAddress = "192.0.2.66"
	quietPorts     = 4
	quietFirst     = 2000
)

// denialsFlood measures how often one run can be refused, while each refusal of
// another is told.
func denialsFlood(ctx context.Context, s *site, _ names) ([]Result, error) {
	f, err := startFlood(ctx, s)
	if err != nil {
		return nil, err
	}
	n := s.rounds(100_000)
	series, err := interleave(ctx, s.rounds(20), []side{
		{"refused", func(round int) ([]float64, error) { return f.once(round, n) }},
		{"outside", func(int) ([]float64, error) {
			return f.outside.Ask(order{Op: "let through", Address: refusedAddress + ":9", N: n})
		}},
	})
	if err != nil {
		return nil, err
	}
	if err := f.check(ctx); err != nil {
		return nil, err
	}
	r := compare("denials_flood", "den/s", "the same connects of a process in no run", series["refused"][0], series["outside"][0])
	r.Note = "UDP connects of one thread; another run's refusals meanwhile were told one by one, and no event was lost"
	return []Result{r}, nil
}

// flood is a loud run, a quiet one and what was told of the quiet one.
type flood struct {
	kernel               *kernel.Kernel
	loud, quiet, outside *process
	loudRun, quietRun    uint64
	asked                uint64 // refusals of the loud run
	rounds               int

	mu   sync.Mutex
	told map[uint16]bool // ports that the quiet run was refused
}

func startFlood(ctx context.Context, s *site) (*flood, error) {
	k, err := s.openKernel()
	if err != nil {
		return nil, err
	}
	s.OnClose(func() error { return s.closeKernel(k) })
	f := &flood{kernel: k, told: map[uint16]bool{}}
	none, err := ruleset.Compile(nil)
	if err != nil {
		return nil, err
	}
	var loud, quiet string
	if loud, f.loudRun, err = s.governed(k, "run_loud", none); err != nil {
		return nil, err
	}
	if quiet, f.quietRun, err = s.governed(k, "run_quiet", none); err != nil {
		return nil, err
	}
	for dir, p := range map[string]**process{loud: &f.loud, quiet: &f.quiet, "": &f.outside} {
		if *p, err = s.worker(ctx, dir); err != nil {
			return nil, err
		}
	}
	reading, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- k.Events(reading, f.tell) }()
	s.OnClose(func() error {
		stop()
		return <-ended
	})
	return f, nil
}

func (f *flood) tell(e kernel.Event) {
	if e.Kind == kernel.EventDenied && e.CgroupID == f.quietRun {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.told[e.Address.Port()] = true
	}
}

// once has both runs refused.
func (f *flood) once(round, n int) ([]float64, error) {
	type answer struct {
		values []float64
		err    error
	}
	loud := make(chan answer, 1)
	go func() {
		v, err := f.loud.Ask(order{Op: "refused", Address: refusedAddress + ":9", N: n})
		loud <- answer{v, err}
	}()
	_, err := f.quiet.Ask(order{Op: "refused", Address: refusedAddress + ":9", N: quietPorts, Offset: quietFirst + quietPorts*round})
	got := <-loud
	f.asked += uint64(n)
	f.rounds++
	return got.values, errors.Join(err, got.err)
}

// check compares what was told and counted with what happened.
func (f *flood) check(ctx context.Context) error {
	if err := f.kernel.Flush(ctx); err != nil {
		return err
	}
	loud, err := f.kernel.Counters(f.loudRun)
	if err != nil {
		return err
	}
	quiet, err := f.kernel.Counters(f.quietRun)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	want := uint64(quietPorts * f.rounds)
	if loud.Total() != f.asked || loud.Lost() != 0 || quiet.Total() != want || quiet.Lost() != 0 || uint64(len(f.told)) != want {
		return fmt.Errorf("the loud run was refused %d times, counted %d, lost %d; the quiet one %d times, counted %d, told %d, lost %d",
			f.asked, loud.Total(), loud.Lost(), want, quiet.Total(), len(f.told), quiet.Lost())
	}
	return nil
}
