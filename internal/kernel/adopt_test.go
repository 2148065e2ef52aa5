package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/varvel/varvel/internal/ruleset"
)

// reopen is the death of the daemon and the start of another.
func (e *testEnv) reopen(t testing.TB) {
	t.Helper()
	e.Close()
	k, err := Open(e.cfg)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	e.Kernel = k
}

// site is a run with a listed and an unlisted receiver for each protocol.
type site struct {
	cgroup                             string
	run                                uint64
	listed, unlisted, listedU, unlistU *receiver
}

func newSite(t testing.TB, e *testEnv) *site {
	t.Helper()
	s := &site{
		listed: receive(t, "tcp4", "192.0.2.1:0"), unlisted: receive(t, "tcp4", "192.0.2.1:0"),
		listedU: receive(t, "udp4", "192.0.2.1:0"), unlistU: receive(t, "udp4", "192.0.2.1:0"),
	}
	s.cgroup, s.run = e.newRun(t, "run_a", false)
	s.allow(t, e)
	return s
}

// allow gives the run the rule set that makes the listed receivers listed.
func (s *site) allow(t testing.TB, e *testEnv) {
	t.Helper()
	e.allow(t, s.run, []ruleset.PortRange{
		{First: s.port(s.listed), Last: s.port(s.listed), Protocol: ruleset.TCP},
		{First: s.port(s.listedU), Last: s.port(s.listedU), Protocol: ruleset.UDP},
	}, "192.0.2.0/24", "2001:db8::/32")
}

func (s *site) port(r *receiver) uint16 { return netip.MustParseAddrPort(r.addr).Port() }

// hammer starts a process that tries all of them until stopped.
func (s *site) hammer(t testing.TB) *process {
	t.Helper()
	p := start(t, s.cgroup, "hammer", s.listed.addr, s.unlisted.addr, s.listedU.addr, s.unlistU.addr)
	p.expect(t, "hammering")
	return p
}

type tries struct {
	listed, listedRefused, unlisted, unlistedRefused int
	last                                             string
}

func stopHammer(t testing.TB, p *process) (out tries) {
	t.Helper()
	p.stdin.Close()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(line, "%d/%d %d/%d %s", &out.listed, &out.listedRefused, &out.unlisted, &out.unlistedRefused, &out.last); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return out
}

// leaked is how much arrived that must not.
func (s *site) leaked() int64 { return s.unlisted.settle() + s.unlistU.settle() }

// check tries one listed and one unlisted connection.
func (s *site) check(t testing.TB, when string) {
	t.Helper()
	if got := in(t, s.cgroup, "dial", "tcp4", s.listed.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("%s: listed: %q", when, got)
	}
	if got := in(t, s.cgroup, "dial", "tcp4", s.unlisted.addr); got != "EPERM" {
		t.Errorf("%s: unlisted: %q, want EPERM", when, got)
	}
	if n := s.leaked(); n != 0 {
		t.Errorf("%s: %d leaked", when, n)
	}
}

func TestAdoptedRunGoesOn(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	_, quiet := e.newRun(t, "run_observe", true)
	name := netip.MustParseAddrPort("198.18.0.7:443")
	if err := e.AllowName(s.run, name.Addr(), tcp443); err != nil {
		t.Fatal(err)
	}
	talker := start(t, s.cgroup, "talk", s.listed.addr)
	talker.say(t, "one")
	waitFor(t, "the first line", func() bool { return s.listed.received.Load() == 4 })
	worker := s.hammer(t)
	for range 5 {
		e.reopen(t)
	}
	talker.say(t, "two")
	waitFor(t, "the second line of the open connection", func() bool { return s.listed.received.Load() == 8 })
	got := stopHammer(t, worker)
	if got.listed == 0 || got.listedRefused != 0 {
		t.Errorf("of %d listed tries %d failed (%s)", got.listed, got.listedRefused, got.last)
	}
	if got.unlisted == 0 || got.unlisted != got.unlistedRefused || s.leaked() != 0 {
		t.Errorf("of %d unlisted tries %d were refused; %d arrived", got.unlisted, got.unlistedRefused, s.leaked())
	}
	if c, err := e.Counters(s.run); err != nil || c.Refused["no-rule"] != uint64(got.unlisted) {
		t.Errorf("counters %+v, %v; the worker was refused %d times", c, err, got.unlisted)
	}
	if a := e.Adoption(); !a.Adopted || len(a.Replaced)+len(a.Repaired) != 0 || a.SocketsLost || a.RulesLost {
		t.Errorf("adoption %+v", a)
	}
	if want := []Run{{s.run, false}, {quiet, true}}; !slices.Equal(e.Runs(), want) {
		t.Errorf("runs %v, want %v", e.Runs(), want)
	}
	if names := e.Names(s.run); len(names) != 1 || names[0] != name {
		t.Errorf("names %v", names)
	}
	s.check(t, "after all")
}

// TestAdoptedStateIsHandedBack: the node gives each run its rules again; what was
// adopted goes then, and nothing else does before.
func TestAdoptedStateIsHandedBack(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	generation := e.node.Generation
	e.reopen(t)
	if e.node.Generation <= generation {
		t.Errorf("the generation went from %d to %d", generation, e.node.Generation)
	}
	// Another rule set with other ports must not take what the adopted one uses.
	_, other := e.newRun(t, "run_b", false)
	e.allow(t, other, ports(1, 1), "192.0.2.0/24")
	s.check(t, "with another rule set loaded")
	s.allow(t, e)
	s.check(t, "with its own again")
	if err := e.sets.sweep(farAhead()); err != nil {
		t.Fatal(err)
	}
	if n := len(e.sets.byIndex); n != 2 {
		t.Errorf("%d rule sets are loaded after the sweep, want that of each run", n)
	}
	if n := len(e.sets.ports.known); n != 2 {
		t.Errorf("%d port sets are kept", n)
	}
	s.check(t, "after the sweep")
}

func TestModeOfAnAdoptedRunCanChange(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	e.reopen(t)
	if err := e.AddRun(s.run, true); err != nil {
		t.Fatal(err)
	}
	if got := in(t, s.cgroup, "dial", "tcp4", s.unlisted.addr); !strings.HasPrefix(got, "ok") {
		t.Errorf("in observe: %q", got)
	}
	s.unlisted.settle()
	s.unlisted.arrived.Store(0)
	if err := e.AddRun(s.run, false); err != nil {
		t.Fatal(err)
	}
	s.check(t, "in enforce again, with the rules that it had")
}

// TestAdoptedNamesCanBeWithdrawn: the names of an adopted run are known one by one.
func TestAdoptedNamesCanBeWithdrawn(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	for _, address := range []string{"198.18.0.7", "198.18.0.8"} {
		if err := e.AllowName(run, netip.MustParseAddr(address), tcp443); err != nil {
			t.Fatal(err)
		}
	}
	e.reopen(t)
	visitors, _ := e.openDoors(t)
	keep := netip.MustParseAddrPort("198.18.0.8:443")
	if err := e.PruneNames(run, func(dst netip.AddrPort) bool { return dst == keep }); err != nil {
		t.Fatal(err)
	}
	if got := in(t, cgroup, "dial", "tcp4", "198.18.0.7:443"); got != "EPERM" {
		t.Errorf("the withdrawn name: %q, want EPERM", got)
	}
	if got := in(t, cgroup, "dial", "tcp4", keep.String()); !strings.HasPrefix(got, "ok") {
		t.Errorf("the other name: %q", got)
	}
	if v := next(t, visitors); v.err != nil || v.dst != keep {
		t.Errorf("the door saw %+v", v)
	}
}

func TestDoorsAreAdopted(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	if err := e.AllowName(run, netip.MustParseAddr("198.18.0.7"), tcp443); err != nil {
		t.Fatal(err)
	}
	_, doors := e.openDoors(t)
	e.Close()
	k, err := Open(e.cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Kernel = k
	if e.Doors() != doors {
		t.Errorf("doors %+v, want %+v", e.Doors(), doors)
	}
	visitors, _ := e.openDoors(t)
	if got := in(t, cgroup, "dial", "tcp4", "198.18.0.7:443"); !strings.HasPrefix(got, "ok") {
		t.Errorf("a name after adoption: %q", got)
	}
	if v := next(t, visitors); v.err != nil || v.run != run {
		t.Errorf("the door saw %+v", v)
	}
}

// gather reads events into a slice until stopped.
func (e *testEnv) gather(t testing.TB, into *[]Event) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	k := e.Kernel
	var mu sync.Mutex // events of two classes come at the same time
	go func() {
		done <- k.Events(ctx, func(ev Event) {
			mu.Lock()
			defer mu.Unlock()
			*into = append(*into, ev)
		})
	}()
	k.awaitReaders(t) // until then there is nothing that Flush could wait for
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestNoEventIsLostOrDoubled starts programs while daemons come and go.
func TestNoEventIsLostOrDoubled(t *testing.T) {
	e := newTestEnv(t)
	cgroup, run := e.newRun(t, "run_a", false)
	const programs = 400
	finished := make(chan string)
	go func() { finished <- in(t, cgroup, "spawn", fmt.Sprint(programs)) }()
	var events []Event
	said, switches := "", 0
	for ; said == ""; switches++ {
		stop := e.gather(t, &events)
		select {
		case said = <-finished:
		default:
		}
		stop()
		e.reopen(t)
	}
	stop := e.gather(t, &events)
	if err := e.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if said != "ok" || switches < 2 {
		t.Fatalf("%q, %d switches", said, switches)
	}
	checkProcesses(t, e, run, events, programs+1)
	t.Logf("%d switches", switches)
}

func checkProcesses(t *testing.T, e *testEnv, run uint64, events []Event, executed int) {
	t.Helper()
	execs, exits := map[uint32]int{}, map[uint32]int{}
	for _, ev := range events {
		switch {
		case ev.CgroupID != run:
			t.Errorf("an event of nobody's: %+v", ev)
		case ev.Kind == EventExec:
			execs[ev.PID]++
		case ev.Kind == EventExit:
			exits[ev.PID]++
		}
	}
	for pid, n := range execs {
		if n != 1 || exits[pid] != 1 {
			t.Errorf("process %d: %d exec and %d exit events", pid, n, exits[pid])
		}
	}
	c, err := e.Counters(run)
	if err != nil || len(execs) != executed || c.Executed != uint64(executed) {
		t.Errorf("%d exec events, counters %+v, %v; %d programs were started", len(execs), c, err, executed)
	}
	// The first process was born elsewhere; everyone's end is seen.
	if c.Forked+1 != c.Exited || uint64(len(exits)) != c.Exited || c.Lost() != 0 {
		t.Errorf("%d exit events, counters %+v", len(exits), c)
	}
}

// TestUpgradesUnderLoad goes to another build and back while a run works.
func TestUpgradesUnderLoad(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	upgrades := 200
	if testing.Short() {
		upgrades = 20
	}
	worker := s.hammer(t)
	program := programOf(t, e, "varvel_connect4")
	for range upgrades {
		e.reopen(t)
		p := programOf(t, e, "varvel_connect4")
		if p == program {
			t.Fatal("the link still has the old program")
		}
		program = p
	}
	got := stopHammer(t, worker)
	if got.listed == 0 || got.listedRefused != 0 {
		t.Errorf("of %d listed tries %d failed (%s)", got.listed, got.listedRefused, got.last)
	}
	if got.unlisted == 0 || got.unlisted != got.unlistedRefused || s.leaked() != 0 {
		t.Errorf("of %d unlisted tries %d were refused; %d arrived", got.unlisted, got.unlistedRefused, s.leaked())
	}
	t.Logf("%d upgrades, %+v", upgrades, got)
}

func programOf(t testing.TB, e *testEnv, name string) ebpf.ProgramID {
	t.Helper()
	info, err := e.links[name].Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Program
}

// farAhead is when nobody's rule set is new any more.
func farAhead() time.Time { return time.Now().Add(2 * idleTime) }
