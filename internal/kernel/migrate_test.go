package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/varvel/varvel/internal/workload"
)

// grow makes the value of a map longer, as a new field at its end would.
func grow(s *specs, name string) {
	for _, c := range s.all() {
		if m, ok := c.Maps[name]; ok {
			v := btf.Copy(m.Value).(*btf.Struct)
			v.Members = append(v.Members, btf.Member{Name: "later", Type: &btf.Int{Name: "u64", Size: 8}, Offset: btf.Bits(8 * v.Size)})
			v.Size += 8
			m.Value, m.ValueSize = v, v.Size
		}
	}
}

// resize changes how much a map holds.
func resize(s *specs, name string, by int) {
	for _, c := range s.all() {
		if m, ok := c.Maps[name]; ok {
			m.MaxEntries = uint32(int(m.MaxEntries) + by)
		}
	}
}

// upgrade is the start of a daemon of another build.
func (e *testEnv) upgrade(t testing.TB, change func(*specs)) {
	t.Helper()
	s := mustSpecs(t)
	change(s)
	e.Close()
	k, err := open(e.cfg, s, func(string) error { return nil })
	if err != nil {
		t.Fatalf("%+v", err)
	}
	e.Kernel = k
}

func TestOtherSocketsAreMigrated(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	talker := start(t, s.cgroup, "talk", s.listed.addr)
	talker.say(t, "one")
	waitFor(t, "the first line", func() bool { return s.listed.received.Load() == 4 })
	worker := s.hammer(t)
	e.upgrade(t, func(s *specs) { grow(s, "sockets") })
	a := e.Adoption()
	if !a.SocketsLost || a.RulesLost || !slices.Equal(a.Replaced, []string{"redirects", "shares", "sockets"}) {
		t.Errorf("adoption %+v", a)
	}
	talker.say(t, "two")
	waitFor(t, "the old socket to be refused and told", func() bool { return refusedNobody(t, e) > 0 })
	if c, err := e.Counters(0); err != nil || c.Refused["no-run"] == 0 {
		t.Errorf("counters of nobody: %+v, %v", c, err)
	}
	if n := s.listed.received.Load(); n != 4 {
		t.Errorf("%d bytes arrived; the old socket still sends", n)
	}
	got := stopHammer(t, worker)
	if got.unlisted != got.unlistedRefused || s.leaked() != 0 {
		t.Errorf("%+v, %d leaked", got, s.leaked())
	}
	s.check(t, "new sockets")
	e.reopen(t)
	s.check(t, "back in the first layout")
	if a := e.Adoption(); !a.SocketsLost {
		t.Errorf("adoption %+v", a)
	}
}

// refusedNobody is how often something was refused that belongs to no run: events
// tell, because there is no run whose counter could.
func refusedNobody(t *testing.T, e *testEnv) int {
	t.Helper()
	var events []Event
	stop := e.gather(t, &events)
	err := e.Flush(t.Context())
	stop()
	n := 0
	for _, ev := range events {
		if ev.Reason == "no-run" {
			n++
		}
	}
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestOtherRuleMapsAreMigrated(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	_, quiet := e.newRun(t, "run_observe", true)
	talker := start(t, s.cgroup, "talk", s.listed.addr)
	talker.say(t, "one")
	waitFor(t, "the first line", func() bool { return s.listed.received.Load() == 4 })
	e.upgrade(t, func(s *specs) { resize(s, "port_sets", -1024) })
	if a := e.Adoption(); a.SocketsLost || !a.RulesLost {
		t.Errorf("adoption %+v", a)
	}
	if want := []Run{{s.run, false}, {quiet, true}}; !slices.Equal(e.Runs(), want) {
		t.Errorf("runs %v, want %v", e.Runs(), want)
	}
	if got := in(t, s.cgroup, "dial", "tcp4", s.listed.addr); got != "EPERM" {
		t.Errorf("without its rules: %q, want EPERM", got)
	}
	s.allow(t, e)
	s.check(t, "with its rules again")
	talker.say(t, "two")
	waitFor(t, "the open connection to go on", func() bool { return s.listed.received.Load() >= 8 })
}

func TestOtherNamesAndCountersAreMigrated(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	name := netip.MustParseAddrPort("198.18.0.7:443")
	if err := e.AllowName(s.run, name.Addr(), tcp443); err != nil {
		t.Fatal(err)
	}
	_, doors := e.openDoors(t)
	generation := e.node.Generation
	worker := s.hammer(t)
	for i := range 4 {
		e.upgrade(t, func(s *specs) {
			for _, m := range []string{"names", "counters", "redirects"} {
				resize(s, m, 1-i%2)
			}
			for _, c := range s.all() {
				c.Maps["node"].Flags = uint32(1-i%2) << 10 // BPF_F_MMAPABLE, which changes nothing here
			}
		})
	}
	if want := []string{"counters", "names", "node", "redirects"}; !slices.Equal(e.Adoption().Replaced, want) {
		t.Errorf("adoption %+v, want %v", e.Adoption(), want)
	}
	if e.Doors() != doors || e.node.Generation < generation+4 {
		t.Errorf("doors %+v, generation %d; they were %+v, %d", e.Doors(), e.node.Generation, doors, generation)
	}
	got := stopHammer(t, worker)
	if got.listedRefused != 0 || got.unlisted != got.unlistedRefused || s.leaked() != 0 {
		t.Errorf("%+v, %d leaked", got, s.leaked())
	}
	if c, err := e.Counters(s.run); err != nil || c.Refused["no-rule"] != uint64(got.unlisted) {
		t.Errorf("counters %+v, %v; the worker was refused %d times", c, err, got.unlisted)
	}
	visitors, _ := e.openDoors(t)
	if said := in(t, s.cgroup, "dial", "tcp4", name.String()); !strings.HasPrefix(said, "ok") {
		t.Errorf("the name: %q", said)
	}
	if v := next(t, visitors); v.err != nil || v.run != s.run {
		t.Errorf("the door saw %+v", v)
	}
}

func TestOtherRingIsMigrated(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	s.check(t, "before")
	e.upgrade(t, func(s *specs) {
		for _, c := range s.all() {
			if m, ok := c.Maps["denials"]; ok {
				m.MaxEntries *= 2
			}
		}
	})
	if a := e.Adoption(); a.EventBytes == 0 || a.SocketsLost || a.RulesLost {
		t.Errorf("adoption %+v; events were waiting", a)
	}
	events := e.collect(t)
	s.check(t, "with the new ring")
	expectEvent(t, events, func(ev Event) bool { return ev.Kind == EventDenied && ev.CgroupID == s.run })
}

// TestHooksComeAndGo: a build that attaches one program more, or one less.
func TestHooksComeAndGo(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	const bind4 = "link_varvel_bind4"
	var key [nameBytes]byte
	copy(key[:], bind4)
	if err := errors.Join(e.objects.maps[layoutMap].Delete(key), os.Remove(filepath.Join(e.cfg.Pins, bind4)), e.links["varvel_bind4"].Close()); err != nil {
		t.Fatal(err)
	}
	extra, err := hook{program: "extra", cgroup: e.cfg.Runs, attach: ebpf.AttachCGroupInet6Bind}.attachTo(e.objects.programs["varvel_bind6"])
	if err != nil {
		t.Fatal(err)
	}
	copy(key[:], "link_varvel_extra")
	if err := errors.Join(pinLink(extra, filepath.Join(e.cfg.Pins, "link_varvel_extra")), e.objects.maps[layoutMap].Put(key, uint64(1)), extra.Close()); err != nil {
		t.Fatal(err)
	}
	if n := len(attachedTo(t, e.cfg)); n != onCgroups(e.cfg) {
		t.Fatalf("%d programs are attached, want %d with another one in the place of bind4", n, onCgroups(e.cfg))
	}
	e.reopen(t)
	if a := e.Adoption(); len(a.Repaired) != 0 || len(a.Replaced) != 0 {
		t.Errorf("adoption %+v", a)
	}
	waitFor(t, "the program that this build lacks to go", func() bool { return len(attachedTo(t, e.cfg)) == onCgroups(e.cfg) })
	if _, err := os.Lstat(filepath.Join(e.cfg.Pins, "link_varvel_extra")); err == nil {
		t.Error("its pin is still there")
	}
	if err := e.CheckPins(); err != nil {
		t.Error(err)
	}
	s.check(t, "after all")
}

// TestFailedAdoptionLeavesTheOldInForce makes every step fail in turn.
func TestFailedAdoptionLeavesTheOldInForce(t *testing.T) {
	for name, change := range map[string]func(*specs){
		"same layout":  func(*specs) {},
		"other layout": func(s *specs) { grow(s, "sockets"); resize(s, "names", 1) },
	} {
		e := newTestEnv(t)
		s := newSite(t, e)
		before := snapshot(t, e)
		e.Close()
		steps := 0
		for ; ; steps++ {
			broken := errors.New("injected")
			left := steps
			k, err := open(e.cfg, changed(t, change), func(string) error {
				if left--; left < 0 {
					return broken
				}
				return nil
			})
			if err == nil {
				e.Kernel = k
				break
			}
			if !errors.Is(err, broken) {
				t.Fatalf("%s, step %d: %v", name, steps, err)
			}
			if got := snapshot(t, e); !slices.Equal(got, before) {
				t.Fatalf("%s, after failure %d: the kernel has\n%v, not\n%v", name, steps, got, before)
			}
			if steps%5 == 0 {
				s.check(t, fmt.Sprintf("%s, after failure %d", name, steps))
			}
		}
		if steps < 20 {
			t.Errorf("%s: only %d steps could fail", name, steps)
		}
		s.check(t, name+", at last")
		if left, _ := filepath.Glob(e.cfg.Pins + tempInfix + "*"); len(left) != 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
		e.end(t)
	}
}

func changed(t testing.TB, change func(*specs)) *specs {
	s := mustSpecs(t)
	change(s)
	return s
}

// snapshot is what is pinned and attached, by the kernel's numbers.
func snapshot(t testing.TB, e *testEnv) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(e.cfg.Pins)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		path := filepath.Join(e.cfg.Pins, entry.Name())
		if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
			id, _ := mapID(m)
			var slot ebpf.ProgramID
			if m.Type() == ebpf.ProgramArray {
				m.Lookup(uint32(0), &slot)
			}
			out = append(out, fmt.Sprint(entry.Name(), id, slot))
			m.Close()
		} else if l, err := link.LoadPinnedLink(path, nil); err == nil {
			info, err := l.Info()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprint(entry.Name(), info.ID, info.Program))
			l.Close()
		} else {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return append(out, attachedTo(t, e.cfg)...)
}

// attachedTo lists all programs on the cgroups and our tracepoints' stubs.
func attachedTo(t testing.TB, cfg Config) []string {
	t.Helper()
	ids := map[uint64]string{}
	for _, path := range []string{cfg.Runs, cfg.Daemon} {
		if id, err := workload.Inode(path); err == nil {
			ids[id] = path
		}
	}
	var out []string
	if err := eachLink(func(_ link.Link, info *link.Info) (bool, error) {
		if cg := info.Cgroup(); cg != nil && ids[cg.CgroupId] != "" {
			out = append(out, fmt.Sprint("attached ", ids[cg.CgroupId], info.ID, info.Program))
		}
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// onCgroups is how many programs belong on cgroups.
func onCgroups(cfg Config) int {
	return len(hooksOn(cfg, cfg.Runs)) + len(hooksOn(cfg, cfg.Daemon))
}

func hooksOn(cfg Config, cgroup string) (out []hook) {
	for _, h := range cfg.hooks() {
		if h.cgroup == cgroup {
			out = append(out, h)
		}
	}
	return out
}
