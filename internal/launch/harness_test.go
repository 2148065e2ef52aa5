package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets this binary be the init of runs, the command in them, and the
// client that starts them.
func TestMain(m *testing.M) {
	InitMain()
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		os.Exit(helper(os.Args[2], os.Args[3:]))
	}
	heedSignals()
	os.Exit(m.Run())
}

// heedSignals makes what the tests start begin with the default action for
// signals that this process was started to ignore, as under nohup: a shell can't
// trap what was ignored on entry (POSIX, trap).
func heedSignals() {
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
}

// fakeStarter makes cgroups and lets everybody start everything.
type fakeStarter struct {
	root string // a cgroup2 directory
	plan Plan

	count   atomic.Int64
	mu      sync.Mutex // guards what follows
	refuse  error
	started []Started
	exited  []Exit
	notice  string
	began   chan Started
	ended   chan string // cgroups that are empty
}

type fakeHandle struct {
	s      *fakeStarter
	cgroup string
}

func (s *fakeStarter) Begin(_ context.Context, _ Peer, _ StartRequest) (Plan, Handle, error) {
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		return Plan{}, nil, refuse
	}
	p := s.plan
	p.Run = fmt.Sprintf("run_%d", s.count.Add(1))
	p.Cgroup = filepath.Join(s.root, fmt.Sprintf("varvel-launch-%d-%s", os.Getpid(), p.Run))
	if err := os.Mkdir(p.Cgroup, 0o755); err != nil {
		return Plan{}, nil, err
	}
	return p, &fakeHandle{s, p.Cgroup}, nil
}

// refuseWith makes Begin fail from now on.
func (s *fakeStarter) refuseWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

func (h *fakeHandle) Started(st Started) {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.started = append(h.s.started, st)
	select {
	case h.s.began <- st:
	default:
	}
}

func (h *fakeHandle) Exited(e Exit) string {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.exited = append(h.s.exited, e)
	return h.s.notice
}

func (h *fakeHandle) Ended() {
	err := unix.Rmdir(h.cgroup)
	if err != nil {
		h.s.ended <- fmt.Sprintf("%s: %v", h.cgroup, err)
		return
	}
	h.s.ended <- ""
}

// bench is a daemon to start runs with.
type bench struct {
	t       testing.TB
	dir     string // world-readable
	socket  string
	exe     string // this binary, where everybody can execute it
	starter *fakeStarter
	keeper  *fakeKeeper
	stop    func() error // the server, and its runs
	// handOver stops the server and leaves its runs.
	handOver func() error
}

// newBench serves a launch socket until the test ends. It skips where there is
// no root to start runs as others.
func newBench(t testing.TB, plan Plan) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("starting runs needs root: namespaces, cgroups and changing users")
	}
	dir, err := os.MkdirTemp("", "varvel-launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir, socket: filepath.Join(dir, "launch.sock"), exe: filepath.Join(dir, "helper")}
	copyFile(t, "/proc/self/exe", b.exe)
	b.starter = &fakeStarter{root: cgroupRoot(t), plan: plan, ended: make(chan string, 64), began: make(chan Started, 1)}
	b.keeper = &fakeKeeper{t: t, held: map[string][]int{}}
	t.Cleanup(b.keeper.end)
	b.serve(nil)
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Error("serve:", err)
		}
		b.noneLeft()
	})
	return b
}

// initEnv names the directory with the program of init for the tests. Without it
// this binary is the init.
const initEnv = "VARVEL_LAUNCH_TEST_INIT"

// serve serves the launch socket, and the runs that were adopted.
func (b *bench) serve(adopt func(*Server)) {
	b.t.Helper()
	l, err := Listen(b.socket)
	if err != nil {
		b.t.Fatal(err)
	}
	srv := &Server{Starter: b.starter, Log: slog.New(slog.NewTextHandler(testWriter{b.t}, nil)), Grace: 300 * time.Millisecond, Keeper: b.keeper}
	if dir := os.Getenv(initEnv); dir != "" {
		if srv.Init, err = FindInit(b.t.Context(), dir); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { srv.Init.Close() })
	}
	if adopt != nil {
		adopt(srv)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, l) }()
	b.handOver = sync.OnceValue(func() error { cancel(ErrHandOver); return <-done })
	b.stop = sync.OnceValue(func() error { cancel(nil); return <-done })
}

// noneLeft checks that every cgroup was empty when it was said to be.
func (b *bench) noneLeft() {
	for {
		select {
		case trouble := <-b.starter.ended:
			if trouble != "" {
				b.t.Error("a run was said to have ended:", trouble)
			}
		default:
			return
		}
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

func cgroupRoot(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mounts, err := readMounts(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.fstype == "cgroup2" {
			return m.path
		}
	}
	t.Skip("starting runs needs a cgroup2 file system; none is mounted")
	return ""
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}

// result is how a command ended and what it said.
type result struct {
	code           int
	stdout, stderr string
}

// caller is who starts a run.
type caller struct {
	uid, gid uint32
	groups   []uint32
	env      []string
	dir      string
	extra    []*os.File
	stdin    io.Reader
}

func user1000() caller { return caller{uid: 1000, gid: 1000, groups: []uint32{1000, 4242}} }

func (c caller) prepare(cmd *exec.Cmd) {
	groups := c.groups
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.gid, Groups: groups}}
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/tmp"}, c.env...)
	cmd.Dir = c.dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.ExtraFiles = c.extra
	cmd.Stdin = c.stdin
}

// clientCommand is `varvel run` as c.
func (b *bench) clientCommand(c caller, argv ...string) *exec.Cmd {
	cmd := exec.Command(b.exe, append([]string{"helper", "client", b.socket}, argv...)...)
	c.prepare(cmd)
	return cmd
}

// run runs argv in a run, started by c, and waits for the command's end.
func (b *bench) run(c caller, argv ...string) result {
	b.t.Helper()
	return finish(b.t, b.clientCommand(c, argv...))
}

// bare runs argv as c without any run: the control.
func (b *bench) bare(c caller, argv ...string) result {
	b.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	c.prepare(cmd)
	return finish(b.t, cmd)
}

func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// helper is the part of this binary that is not the test.
func helper(name string, args []string) int {
	switch name {
	case "client":
		c := &Client{Socket: args[0], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Quiet: os.Getenv("QUIET") != ""}
		status, err := c.Run(context.Background(), "tester", args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, "varvel:", err)
		}
		return status
	case "try":
		return tryAct(args[0], args[1:])
	}
	return 99
}
