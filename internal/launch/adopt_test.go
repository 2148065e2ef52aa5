package launch

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeKeeper holds descriptors in this process, as the kernel lets it.
type fakeKeeper struct {
	t    testing.TB
	mu   sync.Mutex
	held map[string][]int
}

func (k *fakeKeeper) Put(name string, conns ...syscall.RawConn) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	closeFDs(k.held[name])
	k.held[name] = nil
	for _, c := range conns {
		err := c.Control(func(fd uintptr) {
			if held, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				k.held[name] = append(k.held[name], held)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *fakeKeeper) Drop(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	closeFDs(k.held[name])
	delete(k.held, name)
	return nil
}

// take returns what is held, as a daemon gets it.
func (k *fakeKeeper) take(name string) (fds []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, fd := range k.held[name] {
		if given, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fds = append(fds, given)
		}
	}
	return fds
}

func (k *fakeKeeper) runs() (ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.held {
		if id, ok := strings.CutPrefix(name, "run/"); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

func (k *fakeKeeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.held {
		k.t.Errorf("the keeper still holds %s", name)
	}
}

// away stops the server as an upgrade does, lets something happen, and starts
// another that adopts every run.
func (b *bench) away(meanwhile func()) {
	b.t.Helper()
	if err := b.handOver(); err != nil {
		b.t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile()
	}
	ids := b.keeper.runs()
	if len(ids) == 0 {
		b.t.Fatal("the keeper has no run")
	}
	b.serve(func(s *Server) {
		for _, id := range ids {
			handle := &fakeHandle{b.starter, fmt.Sprintf("%s/varvel-launch-%d-%s", b.starter.root, unix.Getpid(), id)}
			err := s.Adopt(Adopted{Run: id, Init: b.keeper.take(RunDeposit(id)), Client: b.keeper.take(ClientDeposit(id)), Handle: handle})
			if err != nil {
				b.t.Fatal(err)
			}
		}
	})
}

// waiting is a client under way.
type waiting struct {
	t   testing.TB
	cmd *exec.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Reader
}

// wait starts a shell script that says "ready" first.
func (b *bench) wait(script string) *waiting {
	b.t.Helper()
	cmd := b.clientCommand(user1000(), "sh", "-c", "echo ready; "+script)
	cmd.Stderr = nil
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	w := &waiting{b.t, cmd, in, bufio.NewReader(out)}
	w.says("ready")
	<-b.starter.began
	return w
}

func (w *waiting) says(want string) {
	w.t.Helper()
	got, err := w.out.ReadString('\n')
	if strings.TrimSpace(got) != want {
		w.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func (w *waiting) tell(line string) {
	w.t.Helper()
	if _, err := w.in.Write([]byte(line + "\n")); err != nil {
		w.t.Fatal(err)
	}
}

func (w *waiting) ends(want int) {
	w.t.Helper()
	_ = w.cmd.Wait()
	if got := w.cmd.ProcessState.ExitCode(); got != want {
		w.t.Errorf("exit status %d, want %d", got, want)
	}
}

func TestARunGoesOnWithTheNextDaemon(t *testing.T) {
	b := newBench(t, Plan{Pass: []string{"PATH"}})
	w := b.wait(`read x; echo "got $x"; read y; echo "got $y"; exit 7`)
	b.away(func() {
		w.tell("one")
		w.says("got one")
	})
	b.away(nil)
	w.tell("two")
	w.says("got two")
	w.ends(7)
	<-b.starter.ended
}

// TestWhatHappensWhileNoDaemonIsThere: the next one makes up for it.
func TestWhatHappensWhileNoDaemonIsThere(t *testing.T) {
	t.Run("the command ends", func(t *testing.T) {
		b := newBench(t, Plan{Pass: []string{"PATH"}})
		w := b.wait(`read x; exit 9`)
		b.away(func() { w.tell("go") })
		w.ends(9)
		<-b.starter.ended
	})
	t.Run("the command is killed", func(t *testing.T) {
		b := newBench(t, Plan{Pass: []string{"PATH"}})
		w := b.wait(`read x; kill -USR1 $$; sleep 60`)
		b.away(func() { w.tell("go") })
		w.ends(128 + int(unix.SIGUSR1))
		<-b.starter.ended
	})
	t.Run("a signal is sent", func(t *testing.T) {
		b := newBench(t, Plan{Pass: []string{"PATH"}})
		w := b.wait(`trap 'echo caught; exit 3' TERM; echo set; while :; do sleep 0.05; done`)
		w.says("set")
		b.away(func() { _ = w.cmd.Process.Signal(unix.SIGTERM) })
		w.says("caught")
		w.ends(3)
		<-b.starter.ended
	})
	t.Run("the client is killed", func(t *testing.T) {
		b := newBench(t, Plan{Pass: []string{"PATH"}})
		w := b.wait(`trap 'exit 0' HUP; while :; do sleep 0.05; done`)
		b.away(func() {
			_ = w.cmd.Process.Kill()
			_ = w.cmd.Wait()
		})
		<-b.starter.ended // by the hang-up that it means
	})
}

// TestSignalsAreNotDoubled counts them over several daemons.
func TestSignalsAreNotDoubled(t *testing.T) {
	b := newBench(t, Plan{Pass: []string{"PATH"}})
	w := b.wait(`n=0; trap 'n=$((n+1)); echo "n $n"' USR2; trap 'echo "sum $n"; exit' TERM; echo set; while :; do sleep 0.05; done`)
	w.says("set")
	for i := range 5 {
		if i%2 == 0 {
			_ = w.cmd.Process.Signal(unix.SIGUSR2)
			b.away(nil)
		} else {
			b.away(func() { _ = w.cmd.Process.Signal(unix.SIGUSR2) })
		}
		w.says(fmt.Sprintf("n %d", i+1))
	}
	_ = w.cmd.Process.Signal(unix.SIGTERM)
	w.says("sum 5")
	w.ends(0)
	<-b.starter.ended
}

// TestAnAdoptedRunEndsWithItsDaemon: stopping in order ends it, as its own.
func TestAnAdoptedRunEndsWithItsDaemon(t *testing.T) {
	b := newBench(t, Plan{Pass: []string{"PATH"}})
	w := b.wait(`trap '' HUP; while :; do sleep 0.05; done`)
	b.away(nil)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	<-b.starter.ended // killed after the grace period
	_ = w.cmd.Wait()
}

func TestWhatCannotBeAdopted(t *testing.T) {
	s := &Server{}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []Adopted{{Run: "none"}, {Run: "no pidfd", Init: fds[:]}} {
		if err := s.Adopt(a); err == nil {
			t.Errorf("%s was adopted", a.Run)
		}
	}
	if err := unix.Close(fds[0]); err != unix.EBADF {
		t.Error("descriptors of what was not adopted are open")
	}
}
