package launch

import (
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestInherited compares what programs leave to those that they start with what
// they leave to a run that they start.
func TestInherited(t *testing.T) {
	b := newBench(t, Plan{})
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	probes := map[string]struct{ prepare, probe string }{
		"ignored signals": {"trap '' HUP INT TSTP; ", "grep SigIgn /proc/self/status"},
		"one CPU":         {fmt.Sprintf("taskset -pc %d $$ >/dev/null; ", first(cpus)), "nproc; taskset -p $$ | cut -d: -f2"},
		"batch":           {"chrt -b -p 0 $$; renice -n 3 $$ >/dev/null; ", "chrt -p $$ | cut -d: -f2; nice"},
		"idle":            {"chrt -i -p 0 $$; ", "chrt -p $$ | cut -d: -f2"},
		"idle disk":       {"ionice -c 3 -p $$; ", "ionice -p $$"},
		"disk priority":   {"ionice -c 2 -n 6 -p $$; ", "ionice -p $$"},
	}
	for name, p := range probes {
		usual := b.bare(user1000(), "sh", "-c", p.probe)
		bare := b.bare(user1000(), "sh", "-c", p.prepare+`sh -c "$0"`, p.probe)
		run := b.bare(user1000(), "sh", "-c", p.prepare+`exec "$0" helper client "$1" sh -c "$2"`, b.exe, b.socket, p.probe)
		if bare == usual && (name != "one CPU" || cpus.Count() > 1) {
			t.Errorf("%s: control: nothing was changed: %+v", name, bare)
		}
		if run != bare {
			t.Errorf("%s: %+v, outside %+v", name, run, bare)
		}
	}
}

// first returns the lowest CPU of a set.
func first(cpus unix.CPUSet) int {
	for i, word := range cpus {
		if word != 0 {
			return i*bits.UintSize + bits.TrailingZeros64(uint64(word))
		}
	}
	return 0
}

// TestNoRealTime: a real-time policy is not for runs.
func TestNoRealTime(t *testing.T) {
	b := newBench(t, Plan{})
	const probe = "chrt -p $$ | cut -d: -f2"
	prepare := "chrt -f -p 5 $$ && "
	if bare := b.bare(caller{}, "sh", "-c", prepare+probe); bare.code != 0 {
		t.Skipf("control: this machine lets nobody have a real-time policy: %+v", bare)
	}
	run := b.bare(caller{}, "sh", "-c", prepare+`exec "$0" helper client "$1" sh -c "$2"`, b.exe, b.socket, probe)
	if want := " SCHED_OTHER\n 0\n"; run.stdout != want {
		t.Errorf("a real-time caller's run: %+v", run)
	}
}

// TestForegroundLater starts a run in the background of a shell that then brings
// it to the foreground. It was never stopped, so no signal tells it.
func TestForegroundLater(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skipf("needs a shell that sends no SIGCONT here: %v", err)
	}
	b := newBench(t, Plan{})
	s := newScreen(t)
	cmd := exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i")
	user1000().prepare(cmd)
	cmd.Env = append(cmd.Env, "QUIET=1", "TERM=dumb", "PS1=prompt> ")
	s.attach(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.expect("prompt> ")
	s.press(b.exe + " helper client " + b.socket + " sh -c 'echo beg\"\"un; read x; echo got $x; exit 4' &\n")
	s.expect("begun")
	s.press("echo the shell\" still reads\"\n")
	s.expect("the shell still reads\r\n")
	s.press("fg\n")
	s.expect("exit 4'")
	s.press("word\n")
	s.expect("got word\r\n")
	s.expect("prompt> ")
	s.press("exit $?\n")
	if code := waitFor(cmd); code != 4 {
		t.Errorf("exit status %d", code)
	}
}

func TestSignalsIn(t *testing.T) {
	got, err := signalsIn("0000000000380007") // HUP INT QUIT TSTP TTIN TTOU
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 2, 20, 21, 22}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := signalsIn("x"); err == nil {
		t.Error("a mask that is no number was accepted")
	}
	for want, list := range map[bool][][]int{true: {nil, {1}, got}, false: {{9}, {1, 1, 1, 1, 1, 1}, {-1}, {1 << 20}}} {
		for _, signals := range list {
			if ignorable(signals) != want {
				t.Errorf("ignorable(%v) = %v", signals, !want)
			}
		}
	}
}

// TestNoWorkingDirectory starts runs from places that they cannot be in.
func TestNoWorkingDirectory(t *testing.T) {
	b := newBench(t, Plan{})
	client := fmt.Sprintf("%s helper client %s pwd; code=$?; ", b.exe, b.socket)
	for name, tt := range map[string]struct{ script, want string }{
		"removed":          {"cd $d && rmdir $d && " + client, "varvel: The working directory has been removed"},
		"not for the user": {"cd $d && chmod 0 $d && " + client + "chmod 700 $d; rmdir $d; ", "permission denied). Change to one that you may enter"},
	} {
		r := b.bare(user1000(), "sh", "-c", "d=$(mktemp -d) && "+tt.script+"exit $code")
		if r.code != CodeRefused || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestInterruptedStart: a daemon that does not answer holds nobody.
func TestInterruptedStart(t *testing.T) {
	b := newBench(t, Plan{})
	deaf := b.socket + ".deaf"
	l, err := net.Listen("unix", deaf)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(deaf, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		prepare string
		signals []os.Signal
		code    int
	}{
		{"", []os.Signal{unix.SIGINT}, 130},
		{"", []os.Signal{unix.SIGUSR1, unix.SIGTERM}, 143},
		{"trap '' HUP; ", []os.Signal{unix.SIGHUP, unix.SIGTERM}, 143},
	} {
		cmd := exec.Command("sh", "-c", tt.prepare+`exec "$0" helper client "$1" true`, b.exe, deaf)
		user1000().prepare(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		// The request has been sent when its first byte is here, and signals are
		// caught before that.
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		for _, sig := range tt.signals {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		if code := waitFor(cmd); code != tt.code {
			t.Errorf("%v: exit status %d, want %d", tt.signals, code, tt.code)
		}
		c.Close()
	}
}
