package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/testutil"
)

// TestMain lets this binary be a keeper, and somebody who speaks to one.
func TestMain(m *testing.M) {
	Main()
	if len(os.Args) == 3 && os.Args[1] == "speak" {
		os.Exit(speak(os.Args[2]))
	}
	if len(os.Args) == 5 && os.Args[1] == "daemon" {
		os.Exit(daemon(Options{Socket: os.Args[2], Daemon: os.Args[3], Cgroup: os.Args[4], Log: slog.New(slog.DiscardHandler)}))
	}
	os.Exit(m.Run())
}

// speak asks a keeper for its list, once a line has come.
func speak(socket string) int {
	bufio.NewReader(os.Stdin).ReadString('\n')
	c, err := dial(socket)
	if err == nil {
		var found map[string][]int
		if found, err = c.list(); err == nil {
			fmt.Println("listed", len(found))
			return 0
		}
	}
	fmt.Println(err)
	return 1
}

// home is where a real keeper is, of a daemon that this process is.
func home(t *testing.T) Options {
	t.Helper()
	testutil.RequireRoot(t)
	cg := testutil.NewCgroup(t)
	o := Options{
		Socket: filepath.Join(t.TempDir(), "keeper.sock"), Daemon: filepath.Join(cg.Path, "daemon"),
		Cgroup: filepath.Join(cg.Path, "keeper"), Log: slog.New(slog.DiscardHandler),
	}
	if err := os.Mkdir(o.Daemon, 0o755); err != nil {
		t.Fatal(err)
	}
	join(t, o.Daemon)
	t.Cleanup(func() {
		join(t, filepath.Dir(cg.Path))
		if err := errors.Join(killCgroup(context.Background(), o.Cgroup), remove(o.Daemon)); err != nil {
			t.Error(err)
		}
	})
	return o
}

func join(t *testing.T, cgroup string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}

func remove(cgroup string) error {
	for tries := 0; ; tries++ {
		err := os.Remove(cgroup)
		if err == nil || tries == 100 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func mustOpen(t *testing.T, o Options) (*Deposits, *Found) {
	t.Helper()
	d, found, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d, found
}

func rawOf(t *testing.T, c syscall.Conn) syscall.RawConn {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func keeperPID(t *testing.T, o Options) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(o.Cgroup, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("the keeper's cgroup has %q", text)
	}
	return pid
}

// TestAListenerWaits: who connects while nobody accepts is served by the next
// daemon, at the same port.
func TestAListenerWaits(t *testing.T) {
	o := home(t)
	d, found := mustOpen(t, o)
	if len(found.fds) > 0 || found.Why != nil {
		t.Fatalf("a new keeper has %v, %v", found.fds, found.Why)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Put("door/tcp4", rawOf(t, l.(*net.TCPListener))); err != nil {
		t.Fatal(err)
	}
	d.Close()
	address := l.Addr().String()
	l.Close()
	client, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("the door is closed: %v", err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	d, found = mustOpen(t, o)
	fds := found.Take("door/tcp4")
	if len(fds) != 1 || found.Has("door/tcp4") {
		t.Fatalf("descriptors %v", fds)
	}
	f := os.NewFile(uintptr(fds[0]), "door")
	again, err := net.FileListener(f)
	f.Close()
	if err != nil || again.Addr().String() != address {
		t.Fatal(again, err)
	}
	defer again.Close()
	served, err := again.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	buf := make([]byte, 5)
	if _, err := served.Read(buf); err != nil || string(buf) != "hello" {
		t.Fatal(string(buf), err)
	}
	if err := d.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	again.Close()
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("the keeper still holds the door")
	}
	if _, err := os.Stat(o.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket: %v", err)
	}
}

// TestAKeeperIsConfined looks at the process, as the kernel describes it.
func TestAKeeperIsConfined(t *testing.T) {
	o := home(t)
	d, _ := mustOpen(t, o)
	defer d.Quit(context.Background())
	dir := fmt.Sprintf("/proc/%d", keeperPID(t, o))
	tasks, err := filepath.Glob(dir + "/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, line := range []string{"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(text), line) {
				t.Errorf("%s: %q is missing in\n%s", task, line, text)
			}
		}
	}
	if env, err := os.ReadFile(dir + "/environ"); len(env) > 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if cwd, err := os.Readlink(dir + "/cwd"); cwd != "/" {
		t.Errorf("working directory %s, %v", cwd, err)
	}
	for fd := range 3 {
		if target, err := os.Readlink(fmt.Sprintf("%s/fd/%d", dir, fd)); target != "/dev/null" {
			t.Errorf("descriptor %d is %s, %v", fd, target, err)
		}
	}
	if sid, err := unix.Getsid(keeperPID(t, o)); err != nil || sid != keeperPID(t, o) {
		t.Errorf("session %d, %v", sid, err)
	}
	want := "-1000\n"
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		t.Logf("this machine does not let root be spared by the OOM killer: %v", err)
		own, _ := os.ReadFile("/proc/self/oom_score_adj")
		want = string(own)
	} else {
		defer os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
	}
	if adj, err := os.ReadFile(dir + "/oom_score_adj"); string(adj) != want {
		t.Errorf("oom_score_adj %q, %v", adj, err)
	}
}

// TestWhoIsNoDaemonIsRefused: root outside the daemon's cgroup, as in a run, and
// another user inside it. The control is root inside it.
func TestWhoIsNoDaemonIsRefused(t *testing.T) {
	o := home(t)
	d, _ := mustOpen(t, o)
	defer d.Quit(context.Background())
	if err := os.Chmod(o.Socket, 0o666); err != nil { // else its mode already refuses others
		t.Fatal(err)
	}
	run := filepath.Join(filepath.Dir(o.Daemon), "run_x")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	defer remove(run)
	for _, tt := range []struct {
		name, cgroup string
		uid          uint32
		want         string
	}{
		{"the daemon", o.Daemon, 0, "listed 0"},
		{"root in a run", run, 0, ErrRefused.Error()},
		{"another user", o.Daemon, 65534, "in the keeper's place"},
	} {
		if got := speakFrom(t, o.Socket, tt.cgroup, tt.uid); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

// speakFrom speaks to a keeper from a cgroup, as a user.
func speakFrom(t *testing.T, socket, cgroup string, uid uint32) string {
	t.Helper()
	exe := filepath.Join(filepath.Dir(socket), "exe")
	if b, err := os.ReadFile("/proc/self/exe"); err == nil {
		_ = os.WriteFile(exe, b, 0o755)
	}
	for dir := filepath.Dir(socket); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(exe, "speak", socket)
	cmd.Stdin = strings.NewReader("\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// TestAKeeperThatDiesIsReplaced: the daemon notices and gives the new one
// everything.
func TestAKeeperThatDiesIsReplaced(t *testing.T) {
	o := home(t)
	lost, back := make(chan error, 1), make(chan struct{}, 1)
	o.Lost = func(err error) { lost <- err }
	o.Back = func() { back <- struct{}{} }
	d, _ := mustOpen(t, o)
	r, w := pipe(t)
	dropped, w2 := pipe(t)
	if err := errors.Join(d.Put("a", rawOf(t, w)), d.Put("b", rawOf(t, w2)), d.Drop("b")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	first := keeperPID(t, o)
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-lost; !errors.Is(err, ErrNone) {
		t.Errorf("it was lost by %v", err)
	}
	<-back
	if again := keeperPID(t, o); again == first {
		t.Error("there is no other keeper")
	}
	w.Close()
	w2.Close()
	if atEnd(r) || !atEnd(dropped) {
		t.Error("the new keeper does not hold what the old one did")
	}
	cancel()
	if err := errors.Join(<-ended, d.Quit(context.Background())); err != nil {
		t.Error(err)
	}
	if !atEnd(r) {
		t.Error("something still holds the pipe")
	}
}

// TestAKeeperThatDoesNotAnswerIsReplaced: one that was stopped, and one that
// speaks another version.
func TestAKeeperThatDoesNotAnswerIsReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("waits as long as a daemon would")
	}
	o := home(t)
	d, _ := mustOpen(t, o)
	d.Close()
	first := keeperPID(t, o)
	if err := unix.Kill(first, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	d, found := mustOpen(t, o)
	if found.Why == nil || keeperPID(t, o) == first {
		t.Errorf("a stopped keeper goes on: %v", found.Why)
	}
	if err := d.Quit(context.Background()); err != nil {
		t.Error(err)
	}
}

// daemon starts a keeper and waits for its own end.
func daemon(o Options) int {
	if _, _, err := Open(context.Background(), o); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("open")
	time.Sleep(time.Hour)
	return 0
}

// TestAKeeperOutlivesWhoStartedIt also if that is killed.
func TestAKeeperOutlivesWhoStartedIt(t *testing.T) {
	o := home(t)
	cmd := exec.Command("/proc/self/exe", "daemon", o.Socket, o.Daemon, o.Cgroup)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatal(line)
	}
	pid := keeperPID(t, o)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	d, found := mustOpen(t, o)
	if keeperPID(t, o) != pid || found.Why != nil {
		t.Errorf("there is another keeper: %v", found.Why)
	}
	if err := d.Quit(context.Background()); err != nil {
		t.Error(err)
	}
}
