package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/workload"
)

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
		waitFor(t, "removed links to end", func() bool { return tt.anchored || len(attachedTo(t, e.cfg)) == onCgroups(e.cfg)-cgroupPins(tt.gone) })
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
		if n := len(attachedTo(t, e.cfg)); n != onCgroups(e.cfg) {
			t.Errorf("%s: %d programs are attached, want %d", tt.name, n, onCgroups(e.cfg))
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

// cgroupPins counts the pins of links on cgroups.
func cgroupPins(pins []string) int {
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
	if n := len(attachedTo(t, e.cfg)); n != onCgroups(e.cfg) {
		t.Errorf("%d programs are attached, want %d", n, onCgroups(e.cfg))
	}
	remove()
	e.reopen(t)
	if n := len(e.Adoption().Repaired); n != len(hooksOn(e.cfg, e.cfg.Runs)) {
		t.Errorf("adoption %+v, want the programs of the cgroup of all runs", e.Adoption())
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
	if n, want := attached(), len(e.cfg.hooks()); n != want || len(ours) != want {
		t.Fatalf("%d links of %d are there, want the same %d all the time", n, len(ours), want)
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
