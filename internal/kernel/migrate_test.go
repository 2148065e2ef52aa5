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
	"golang.org/x/sys/unix"

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
	if !a.SocketsLost || a.RulesLost || !slices.Equal(a.Replaced, []string{"redirects", "sockets"}) {
		t.Errorf("adoption %+v", a)
	}
	talker.say(t, "two")
	waitFor(t, "the old socket to be refused and told", func() bool { return refusedNobody(t, e) > 0 })
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
			if m, ok := c.Maps["events"]; ok {
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
	if n := len(attachedTo(t, e.cfg)); n != 15 {
		t.Fatalf("%d programs are attached, want 15 with another one in the place of bind4", n)
	}
	e.reopen(t)
	if a := e.Adoption(); len(a.Repaired) != 0 || len(a.Replaced) != 0 {
		t.Errorf("adoption %+v", a)
	}
	waitFor(t, "the program that this build lacks to go", func() bool { return len(attachedTo(t, e.cfg)) == 15 })
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

func TestMissingPinsAreMended(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gone     []string
		anchored bool
		repaired int
	}{
		{"a link that nobody holds", []string{"link_varvel_connect4"}, false, 1},
		{"a link that a keeper holds", []string{"link_varvel_connect4", "link_varvel_exec_stub"}, true, 0},
		{"maps that the programs use", []string{"map_runs", "map_sockets", "map_layout", "map_on_exec"}, false, 0},
		{"the backstop", []string{"link_varvel_egress", "link_varvel_sock_create"}, false, 2},
		{"a tracepoint", []string{"link_varvel_exec_stub", "map_on_exec"}, false, 1},
		{"everything, but a keeper holds the links", []string{"*"}, true, 0},
	} {
		e := newTestEnv(t)
		s := newSite(t, e)
		var kept []int
		if tt.anchored {
			kept = keep(t, e)
		}
		e.Close()
		for _, g := range tt.gone {
			paths, _ := filepath.Glob(filepath.Join(e.cfg.Pins, g))
			for _, p := range paths {
				if err := os.Remove(p); err != nil {
					t.Fatal(err)
				}
			}
		}
		// The kernel ends a link a moment after its last pin.
		waitFor(t, "removed links to end", func() bool { return tt.anchored || len(attachedTo(t, e.cfg)) == 15-onCgroups(tt.gone) })
		k, err := Open(e.cfg)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		e.Kernel = k
		if a := e.Adoption(); !a.Adopted || len(a.Repaired) != tt.repaired {
			t.Errorf("%s: adoption %+v", tt.name, a)
		}
		s.check(t, tt.name)
		if err := e.CheckPins(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if n := len(attachedTo(t, e.cfg)); n != 15 {
			t.Errorf("%s: %d programs are attached, want 15", tt.name, n)
		}
		if err := Unpin(e.cfg.Pins); err != nil {
			t.Error(err)
		}
		if tt.anchored && len(attachedTo(t, e.cfg)) != 0 {
			t.Errorf("%s: programs that a keeper holds go on after Unpin", tt.name)
		}
		for _, fd := range kept {
			unix.Close(fd)
		}
		e.end(t)
	}
}

// onCgroups counts the pins of links on cgroups.
func onCgroups(pins []string) int {
	n := 0
	for _, p := range pins {
		if strings.HasPrefix(p, "link_") && !strings.HasSuffix(p, "_stub") {
			n++
		}
	}
	return n
}

// keep holds the anchors as another process would.
func keep(t testing.TB, e *testEnv) []int {
	t.Helper()
	var fds []int
	for _, a := range e.Anchors() {
		fd, err := unix.FcntlInt(uintptr(a.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil || len(a.Name) > 31 {
			t.Fatal(a, err)
		}
		fds = append(fds, fd)
	}
	return fds
}

func TestForeignPinsAreAnError(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	e.Close()
	foreign := filepath.Join(e.cfg.Pins, "other")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(e.cfg); !errors.Is(err, ErrPins) {
		t.Errorf("pins that are not ours: %v", err)
	}
	s.check(t, "refused to adopt")
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	e.reopen(t) // closes once more, which is harmless
}

func TestUnmountedPinsAreToldAndMended(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	dir := t.TempDir()
	mount := func() {
		t.Helper()
		if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	e.Kernel.cfg.Pins = filepath.Join(dir, "varvel")
	if err := e.Repin(); err != nil { // moves into the new place
		t.Fatal(err)
	}
	if err := errors.Join(removePins(e.cfg.Pins), e.CheckPins()); err != nil {
		t.Fatal(err)
	}
	e.cfg.Pins = e.Kernel.cfg.Pins
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := e.CheckPins(); err == nil {
		t.Error("pins that are gone pass the check")
	}
	if err := e.Repin(); err == nil || !strings.Contains(err.Error(), "mount") {
		t.Errorf("without bpffs: %v", err)
	}
	s.check(t, "unmounted")
	mount()
	if err := errors.Join(e.Repin(), e.CheckPins()); err != nil {
		t.Errorf("mounted again: %v", err)
	}
	if err := os.Remove(filepath.Join(e.cfg.Pins, "link_varvel_bind4")); err != nil {
		t.Fatal(err)
	}
	if err := e.CheckPins(); err == nil || !strings.Contains(err.Error(), "link_varvel_bind4") {
		t.Errorf("one pin is gone: %v", err)
	}
	if err := errors.Join(e.Repin(), e.CheckPins()); err != nil {
		t.Error(err)
	}
	e.reopen(t)
	s.check(t, "adopted from the new mount")
	e.end(t)
}

func TestReplacedCgroupIsGovernedAgain(t *testing.T) {
	e := newTestEnv(t)
	if err := e.CheckPins(); err != nil {
		t.Fatal(err)
	}
	remove := func() {
		t.Helper()
		if err := workload.Remove(e.cfg.Runs); err != nil {
			t.Fatal(err)
		}
		if err := e.CheckPins(); err == nil || !strings.Contains(err.Error(), "removed") {
			t.Errorf("the cgroup is gone: %v", err)
		}
		if err := e.Repin(); err == nil {
			t.Error("programs were attached to a cgroup that is not there")
		}
		if err := os.Mkdir(e.cfg.Runs, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	if err := errors.Join(e.Repin(), e.CheckPins()); err != nil {
		t.Error(err)
	}
	if n := len(attachedTo(t, e.cfg)); n != 15 {
		t.Errorf("%d programs are attached, want 15", n)
	}
	remove()
	e.reopen(t)
	if n := len(e.Adoption().Repaired); n != 14 {
		t.Errorf("adoption %+v, want the 14 programs of the cgroup", e.Adoption())
	}
	newSite(t, e).check(t, "in the new cgroup")
	if err := e.CheckPins(); err != nil {
		t.Error(err)
	}
}

func TestUnpinLeavesNothing(t *testing.T) {
	e := newTestEnv(t)
	ours := map[link.ID]bool{}
	note := func() {
		for _, l := range e.links {
			info, err := l.Info()
			if err != nil {
				t.Fatal(err)
			}
			ours[info.ID] = true
		}
	}
	note()
	e.reopen(t)
	e.upgrade(t, func(s *specs) { grow(s, "sockets") })
	note()
	attached := func() (n int) {
		for id := range allLinks(t) {
			if ours[id] {
				n++
			}
		}
		return n
	}
	if n := attached(); n != 18 || len(ours) != 18 {
		t.Fatalf("%d links of %d are there, want the same 18 all the time", n, len(ours))
	}
	e.Close()
	if err := Unpin(e.cfg.Pins); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the links to end", func() bool { return attached()+len(attachedTo(t, e.cfg)) == 0 })
	if left, _ := filepath.Glob(e.cfg.Pins + "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func allLinks(t testing.TB) map[link.ID]bool {
	t.Helper()
	out := map[link.ID]bool{}
	if err := eachLink(func(_ link.Link, info *link.Info) (bool, error) {
		out[info.ID] = true
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// BenchmarkAdopt is the time that it takes a daemon to adopt 1,000 runs with two
// names each.
func BenchmarkAdopt(b *testing.B) {
	e := newTestEnv(b)
	const runs = 1000
	for i := range runs {
		_, id, err := e.cgroups.Create(fmt.Sprintf("run_%d", i))
		if err != nil {
			b.Fatal(err)
		}
		if err := e.AddRun(id, false); err != nil {
			b.Fatal(err)
		}
		e.allow(b, id, ports(uint16(1+i%10), 1000), "192.0.2.0/24")
		for j := range 2 {
			addr := netip.AddrFrom4([4]byte{198, 18, byte(i), byte(j)})
			if err := e.AllowName(id, addr, tcp443); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ResetTimer()
	for range b.N {
		e.reopen(b)
		if len(e.Runs()) != runs {
			b.Fatal("runs are missing")
		}
	}
	b.StopTimer()
	for i := range runs {
		removeCgroup(b, filepath.Join(e.cfg.Runs, fmt.Sprintf("run_%d", i)))
	}
}
