package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// mortalVar makes the test's program a daemon that is killed in the middle of an
// adoption: it holds a mortal, as JSON.
const mortalVar = "VARVEL_TEST_MORTAL"

type mortal struct {
	Runs, Daemon, Pins string
	Level              uint32
	Step               int  // before which it dies
	Grown              bool // its sockets have another layout
}

// beMortal returns 3 if there was no such step.
func beMortal() int {
	var m mortal
	if err := json.Unmarshal([]byte(os.Getenv(mortalVar)), &m); err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := readSpecs()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if m.Grown {
		grow(s, "sockets")
	}
	cfg := Config{Runs: m.Runs, Daemon: m.Daemon, Pins: m.Pins, Level: m.Level, Log: slog.New(slog.DiscardHandler)}
	k, err := open(cfg, s, func(string) error {
		if m.Step--; m.Step < 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // not one step further
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	k.Close()
	return 3
}

// dies says whether the daemon was killed; if not, it has adopted.
func (m mortal) dies(t testing.TB) bool {
	t.Helper()
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mortalVar+"="+string(raw))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, out)
	}
	if exit.ExitCode() == 3 {
		return false
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, out)
	}
	return true
}

// TestKilledAdoptionIsBegunAgain kills the next daemon before each of its steps,
// with a daemon of the other layout after it each time.
func TestKilledAdoptionIsBegunAgain(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	e.Close()
	worker := s.hammer(t)
	m := mortal{Runs: e.cfg.Runs, Daemon: e.cfg.Daemon, Pins: e.cfg.Pins, Level: e.cfg.Level, Grown: true}
	for ; m.dies(t); m.Step++ {
		if got := in(t, s.cgroup, "dial", "tcp4", s.unlisted.addr); got != "EPERM" {
			t.Errorf("killed before step %d: unlisted: %q, want EPERM", m.Step, got)
		}
		if m.Step%4 == 3 {
			e.reopen(t) // back in the first layout
			s.check(t, fmt.Sprintf("adopted after step %d", m.Step))
			e.Close()
		}
	}
	if m.Step < 25 {
		t.Errorf("only %d steps", m.Step)
	}
	got := stopHammer(t, worker)
	if got.unlisted == 0 || got.unlisted != got.unlistedRefused || s.leaked() != 0 {
		t.Errorf("%+v, %d leaked", got, s.leaked())
	}
	e.reopen(t)
	s.check(t, "at last")
	if n := len(attachedTo(t, e.cfg)); n != onCgroups(e.cfg) {
		t.Errorf("%d programs are attached, want %d", n, onCgroups(e.cfg))
	}
	if left, err := os.ReadDir("/sys/fs/bpf"); err != nil {
		t.Error(err)
	} else {
		for _, l := range left {
			if strings.HasPrefix("/sys/fs/bpf/"+l.Name(), e.cfg.Pins+tempInfix) {
				t.Errorf("left: %s", l.Name())
			}
		}
	}
}

// TestLossIsToldAfterADeath: the daemon dies when the pins lead to new maps and
// the old programs still work with the old ones. The next has that layout, but not
// the sockets.
func TestLossIsToldAfterADeath(t *testing.T) {
	e := newTestEnv(t)
	s := newSite(t, e)
	step := 0
	switching := errors.New("as far as that")
	e.Close()
	if _, err := open(e.cfg, changed(t, func(s *specs) { grow(s, "sockets") }), func(what string) error {
		if what == "switch varvel_connect4" {
			return switching
		}
		step++
		return nil
	}); !errors.Is(err, switching) {
		t.Fatal(err)
	}
	m := mortal{Runs: e.cfg.Runs, Daemon: e.cfg.Daemon, Pins: e.cfg.Pins, Level: e.cfg.Level, Grown: true, Step: step - 2}
	if !m.dies(t) {
		t.Fatal("it lives")
	}
	e.upgrade(t, func(s *specs) { grow(s, "sockets") })
	if a := e.Adoption(); !a.SocketsLost || a.RulesLost || len(a.Replaced) != 0 {
		t.Errorf("adoption %+v", a)
	}
	s.check(t, "after all")
}
