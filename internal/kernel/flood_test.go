package kernel

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// tally counts what the events of one run tell.
type tally struct {
	events, refusals uint64
	ports            map[uint16]bool
	execs            int
}

// tallies follows all events by run.
type tallies struct {
	mu   sync.Mutex
	runs map[uint64]*tally
}

func (e *testEnv) tally(t *testing.T) *tallies {
	t.Helper()
	all := &tallies{runs: map[uint64]*tally{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Events(ctx, all.add) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	e.awaitReaders(t)
	return all
}

func (all *tallies) add(ev Event) {
	all.mu.Lock()
	defer all.mu.Unlock()
	of := all.runs[ev.CgroupID]
	if of == nil {
		of = &tally{ports: map[uint16]bool{}}
		all.runs[ev.CgroupID] = of
	}
	switch ev.Kind {
	case EventDenied:
		of.events++
		of.refusals += ev.Count
		of.ports[ev.Address.Port()] = true
	case EventExec:
		of.execs++
	}
}

func (all *tallies) of(run uint64) tally {
	all.mu.Lock()
	defer all.mu.Unlock()
	if got := all.runs[run]; got != nil {
		return *got
	}
	return tally{}
}

// awaitReaders waits until every ring is read.
func (k *Kernel) awaitReaders(t testing.TB) {
	t.Helper()
	for i := range k.flushes {
		waitFor(t, "the reader", func() bool {
			k.flushes[i].mu.Lock()
			defer k.flushes[i].mu.Unlock()
			return k.flushes[i].start != nil
		})
	}
}

// TestFloodCostsOthersNothing: while one run is refused all the time on two
// processors, another run's refusals and programs are told one by one, and what
// the first was refused is counted exactly.
func TestFloodCostsOthersNothing(t *testing.T) {
	const distinct, programs = 100, 20
	e := newTestEnv(t)
	loud, loudRun := e.newRun(t, "run_loud", false)
	quiet, quietRun := e.newRun(t, "run_quiet", false)
	all := e.tally(t)
	began := time.Now()
	flood := start(t, loud, "flood", "192.0.2.66:9")
	refused := func() uint64 {
		c, err := e.Counters(loudRun)
		if err != nil {
			t.Fatal(err)
		}
		return c.Total()
	}
	waitFor(t, "the flood", func() bool { return refused() > 200_000 })
	for range programs {
		in(t, quiet, "distinct", "192.0.2.66:1000", "1")
	}
	if got := in(t, quiet, "distinct", "192.0.2.66:2000", "100"); got != "refused 100" {
		t.Fatalf("the quiet run: %q", got)
	}
	took := time.Since(began)
	flood.stdin.Close()
	said, err := flood.stdout.ReadString('\n')
	if want := fmt.Sprintf("refused %d\n", refused()); err != nil || said != want {
		t.Errorf("the loud run says %q, %v; counted: %q", said, err, want)
	}
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d refusals in about %v", refused(), took)
	e.checkQuiet(t, quietRun, all.of(quietRun), distinct, programs+1)
	e.checkLoud(t, loudRun, all.of(loudRun))
}

func (e *testEnv) checkQuiet(t *testing.T, run uint64, got tally, distinct, programs int) {
	t.Helper()
	c, err := e.Counters(run)
	if err != nil || c.Lost() != 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
	for port := range distinct {
		if !got.ports[uint16(2000+port)] {
			t.Errorf("the refusal at port %d was not told", 2000+port)
		}
	}
	if got.refusals != c.Total() || got.execs != programs {
		t.Errorf("told of %d refusals and %d programs; it had %d and %d", got.refusals, got.execs, c.Total(), programs)
	}
}

// checkLoud: without limits, there would be about as many events as refusals.
func (e *testEnv) checkLoud(t *testing.T, run uint64, got tally) {
	t.Helper()
	c, err := e.Counters(run)
	if err != nil || c.Lost() != 0 {
		t.Errorf("counters %+v, %v", c, err)
	}
	if got.events == 0 || got.events > c.Total()/20 || got.refusals > c.Total() || got.refusals < c.Total()/2 {
		t.Errorf("%d events told of %d refusals of %d", got.events, got.refusals, c.Total())
	}
}

// TestStrays: a cgroup that is no run's is refused, and that is counted and
// bounded too.
func TestStrays(t *testing.T) {
	e := newTestEnv(t)
	path, _, err := e.cgroups.Create("run_nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, path) })
	before, err := e.Counters(Nobody)
	if err != nil {
		t.Fatal(err)
	}
	const tries = 5000
	if got := in(t, "", "sockets", "5000"); got != "refused 0" {
		t.Fatalf("control: %q", got)
	}
	if got := in(t, path, "sockets", "5000"); got != "refused 5000" {
		t.Errorf("got %q", got)
	}
	after, err := e.Counters(Nobody)
	if err != nil || after.Refused["no-run"]-before.Refused["no-run"] < tries {
		t.Errorf("counted %d, %v; want %d", after.Refused["no-run"]-before.Refused["no-run"], err, tries)
	}
}
