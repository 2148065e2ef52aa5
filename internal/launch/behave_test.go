package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExit compares exit statuses with those of a shell.
func TestExit(t *testing.T) {
	b := newBench(t, Plan{})
	plain := filepath.Join(b.dir, "plain")
	write(t, plain, "echo from $0")
	script := filepath.Join(b.dir, "script")
	write(t, script, "echo script $1; exit 5\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		argv           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"true"}, 0, "", ""},
		{[]string{"sh", "-c", "exit 7"}, 7, "", ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 128 + 15, "", ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 128 + 9, "", ""},
		{[]string{"no-such-command"}, 127, "", "varvel: no-such-command: command not found\n"},
		{[]string{"/no/such"}, 127, "", "varvel: /no/such: no such file or directory\n"},
		{[]string{plain}, 126, "", "varvel: " + plain + ": permission denied\n"},
		{[]string{"/tmp"}, 126, "", "varvel: /tmp: permission denied\n"},
		{[]string{script, "one"}, 5, "script one\n", ""},
		{[]string{"printf", "%s", "a\xffb"}, 0, "a\xffb", ""},
	}
	for _, tt := range tests {
		for name, c := range users() {
			r := b.run(c, tt.argv...)
			if want := (result{tt.code, tt.stdout, tt.stderr}); r != want {
				t.Errorf("%q, as %s: %+v, want %+v", tt.argv, name, r, want)
			}
		}
	}
}

// TestDirect checks that what a command inherits is what it would have without
// a launcher.
func TestDirect(t *testing.T) {
	b := newBench(t, Plan{})
	probe := "pwd; umask; ulimit -n; ulimit -Hn; ulimit -v; nice; cat /proc/self/oom_score_adj; cat"
	shell := "cd /usr/bin; umask 027; ulimit -n 77; ulimit -v 9000000; "
	for name, c := range users() {
		c.stdin = strings.NewReader("input")
		bare := b.bare(c, "nice", "-n", "5", "sh", "-c", shell+probe)
		c.stdin = strings.NewReader("input")
		run := b.bare(c, "nice", "-n", "5", "sh", "-c", shell+`exec "$0" helper client "$@"`,
			b.exe, b.socket, "sh", "-c", probe)
		if run != bare {
			t.Errorf("as %s: %+v, outside %+v", name, run, bare)
		}
	}
}

// TestEnvironment looks at what of the caller's environment gets through.
func TestEnvironment(t *testing.T) {
	b := newBench(t, Plan{Pass: []string{"APP_*", "GH_TOKEN"}, Set: map[string]string{"ADDED": "1"}})
	c := user1000()
	c.env = []string{"APP_MODE=x", "APP_SECRET=y", "GH_TOKEN=z", "OTHER=1", "LANG=C", "PWD=/wrong"}
	r := b.run(c, "env")
	for _, want := range []string{"APP_MODE=x\n", "LANG=C\n", "ADDED=1\n", "PWD=/\n", "VARVEL_ENDPOINT=http://169.254.170.2\n", "VARVEL_RUN_ID=run_1\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is missing in %q", want, r.stdout)
		}
	}
	for _, name := range []string{"APP_SECRET", "GH_TOKEN", "OTHER"} {
		if strings.Contains(r.stdout, name) {
			t.Errorf("%s got through", name)
		}
	}
	if want := "varvel: removed from the environment: APP_SECRET GH_TOKEN OTHER\n"; r.stderr != want {
		t.Errorf("told %q, want %q", r.stderr, want)
	}
}

// running is a client with a command that has said that it is ready.
type running struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func (b *bench) start(c caller, script string) *running {
	b.t.Helper()
	cmd := b.clientCommand(c, "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stderr = testWriter{b.t}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	r := &running{cmd, bufio.NewReader(out)}
	if line := r.line(); line != "ready\n" {
		b.t.Fatalf("the command said %q", line)
	}
	return r
}

func (r *running) line() string {
	s, _ := r.out.ReadString('\n')
	return s
}

// TestSignals sends signals to the client, which the command must get.
func TestSignals(t *testing.T) {
	b := newBench(t, Plan{})
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2} {
		name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
		r := b.start(user1000(), fmt.Sprintf(`trap "exit 42" %s; echo ready; while :; do sleep 0.05; done`, name))
		if err := r.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		r.cmd.Wait()
		if code := r.cmd.ProcessState.ExitCode(); code != 42 {
			t.Errorf("%s: exit status %d, want 42", name, code)
		}
	}
}

// TestCallerGone kills the client; the command must hear of it.
func TestCallerGone(t *testing.T) {
	b := newBench(t, Plan{})
	r := b.start(user1000(), `trap "echo hung up; exit" HUP; echo ready; while :; do sleep 0.05; done`)
	r.cmd.Process.Kill()
	if line := r.line(); line != "hung up\n" {
		t.Errorf("the command said %q", line)
	}
	r.cmd.Wait()
	if trouble := <-b.starter.ended; trouble != "" {
		t.Error(trouble)
	}
}

// TestBackground leaves a process behind: the client returns, and the run goes
// on until that process ends.
func TestBackground(t *testing.T) {
	b := newBench(t, Plan{})
	b.starter.mu.Lock()
	b.starter.notice = "two refusals\n\x1b[31mred"
	b.starter.mu.Unlock()
	fifo := filepath.Join(b.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	r := b.run(user1000(), "sh", "-c", `(read x <"$0") >/dev/null 2>&1 & exit 3`, fifo)
	if want := (result{3, "", "two refusals\n?[31mred\n"}); r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	select {
	case <-b.starter.ended:
		t.Error("the run is said to have ended while a process of it lives")
	default:
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if trouble := <-b.starter.ended; trouble != "" {
		t.Error(trouble)
	}
}

// TestStoppedJob leaves a stopped job behind, which must not keep the run alive
// for ever.
func TestStoppedJob(t *testing.T) {
	b := newBench(t, Plan{})
	r := b.run(user1000(), "sh", "-c", `set -m; sleep 1000 >/dev/null 2>&1 & kill -STOP $!; until grep -q "State:.T" /proc/$!/status; do sleep 0.02; done; exit 4`)
	if r.code != 4 {
		t.Errorf("%+v", r)
	}
	if trouble := <-b.starter.ended; trouble != "" {
		t.Error(trouble)
	}
}

// TestInitKilled ends init, and with it everything.
func TestInitKilled(t *testing.T) {
	b := newBench(t, Plan{})
	r := b.start(user1000(), `sleep 1000 & echo ready; wait`)
	pid := (<-b.starter.began).InitPID
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.cmd.Wait()
	if code := r.cmd.ProcessState.ExitCode(); code != 128+9 {
		t.Errorf("exit status %d, want 137", code)
	}
	if trouble := <-b.starter.ended; trouble != "" {
		t.Error(trouble)
	}
}

// TestServeEnds stops the daemon while a run lives that ignores SIGHUP.
func TestServeEnds(t *testing.T) {
	b := newBench(t, Plan{})
	r := b.start(user1000(), `trap "" HUP; echo ready; while :; do sleep 0.05; done`)
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	select {
	case trouble := <-b.starter.ended:
		if trouble != "" {
			t.Error(trouble)
		}
	default:
		t.Error("Serve returned before the run ended")
	}
	r.cmd.Wait()
}

// TestStarted looks at what the Starter is told.
func TestStarted(t *testing.T) {
	b := newBench(t, Plan{})
	b.run(user1000(), "sh", "-c", "exit 9")
	<-b.starter.ended
	b.starter.mu.Lock()
	defer b.starter.mu.Unlock()
	if len(b.starter.started) != 1 || b.starter.started[0].InitPID == 0 {
		t.Fatalf("started: %+v", b.starter.started)
	}
	if missing := b.starter.started[0].Missing; fmt.Sprint(missing) != fmt.Sprint(Probe().Missing) {
		t.Errorf("missing %q, probed %q", missing, Probe().Missing)
	}
	if len(b.starter.exited) != 1 || b.starter.exited[0].Code != 9 {
		t.Errorf("exited: %+v", b.starter.exited)
	}
}

// TestRefused lists why there may be no run at all.
func TestRefused(t *testing.T) {
	b := newBench(t, Plan{})
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	c := user1000()
	c.stdin = dir
	if r := b.run(c, "true"); r.code != CodeRefused || !strings.Contains(r.stderr, "it is a directory") {
		t.Errorf("standard input is a directory: %+v", r)
	}
	r := b.bare(caller{}, "unshare", "-m", b.exe, "helper", "client", b.socket, "true")
	if r.code != CodeRefused || !strings.Contains(r.stderr, "container, chroot") {
		t.Errorf("in another mount namespace: %+v", r)
	}
	c = user1000()
	c.dir = "/proc/self"
	if r := b.run(c, "true"); r.code != CodeRefused || !strings.Contains(r.stderr, "working directory") {
		t.Errorf("in a directory that the run does not have: %+v", r)
	}
	b.starter.refuseWith(Refuse("agent %q does not exist", "tester"))
	if r := b.run(user1000(), "true"); r != (result{CodeRefused, "", "varvel: agent \"tester\" does not exist\n"}) {
		t.Errorf("refused by the Starter: %+v", r)
	}
	b.starter.refuseWith(errors.New("internal matter"))
	if r := b.run(user1000(), "true"); r.code != CodeRefused || strings.Contains(r.stderr, "internal") {
		t.Errorf("failure of the Starter: %+v", r)
	}
}

// TestSilentCaller connects and says nothing; Serve must end all the same.
func TestSilentCaller(t *testing.T) {
	b := newBench(t, Plan{})
	c, err := net.Dial("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.run(user1000(), "true") // the connection before this one has been accepted
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection ends with %q, %v", rest, err)
	}
}

// TestNoLeak counts the daemon's descriptors before and after serving runs of
// each kind.
func TestNoLeak(t *testing.T) {
	serveEach(t) // what is opened once and kept
	before := countFDs(t)
	serveEach(t)
	if after := countFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}

func serveEach(t *testing.T) {
	t.Helper()
	b := newBench(t, Plan{})
	b.run(user1000(), "true")
	b.run(user1000(), "no-such-command")
	s := newScreen(t)
	cmd := b.clientCommand(user1000(), "true")
	s.attach(cmd)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	s.master.Close()
	s.slave.Close()
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestDaemonGone closes the control socket, as the daemon's death would.
func TestDaemonGone(t *testing.T) {
	b := newBench(t, Plan{})
	plan, handle, err := b.starter.Begin(t.Context(), Peer{}, StartRequest{})
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	p, err := Start(t.Context(), &Spec{
		Run: plan.Run, Cgroup: plan.Cgroup, Argv: []string{"sleep", "1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/",
		UID: 1000, GID: 1000, Stdio: [3]int{fd, fd, fd},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.control.close()
	<-p.Done()
	handle.Ended()
}

// BenchmarkStart compares a run of true with its bare start.
func BenchmarkStart(b *testing.B) {
	h := newBench(b, Plan{})
	c := user1000()
	var bare, run int64
	for b.Loop() {
		b.StopTimer()
		bare += timed(func() { h.bare(c, h.exe, "helper", "try", "unix") })
		b.StartTimer()
		run += timed(func() { h.run(c, h.exe, "helper", "try", "unix") })
	}
	b.ReportMetric(float64(run)/float64(bare), "x-bare")
}
