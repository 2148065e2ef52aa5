package hostnet

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/testutil"
)

// holder is a program in a cgroup that holds connections and says how they end.
type holder struct {
	lines *bufio.Scanner
	close func() // ends it; more than once is fine
}

// hold starts a holder of one connection to each address, and waits until it has
// them all. A nil cgroup means that it is born where the test is.
func hold(t testing.TB, cg *testutil.Cgroup, addresses ...string) *holder {
	t.Helper()
	cmd := holderCommand(t, cg, addresses)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{bufio.NewScanner(out), sync.OnceFunc(func() { in.Close(); cmd.Wait() })}
	t.Cleanup(h.close)
	h.expect(t, "ready")
	return h
}

func (h *holder) expect(t testing.TB, want string) {
	t.Helper()
	if !h.lines.Scan() || h.lines.Text() != want {
		t.Fatalf("the holder said %q, want %q", h.lines.Text(), want)
	}
}

func (h *holder) next(t testing.TB) string {
	t.Helper()
	if !h.lines.Scan() {
		t.Fatal("the holder is gone")
	}
	return h.lines.Text()
}

// receiver accepts one TCP connection, and tells how reading from it ends.
func receiver(t *testing.T, network, address string) (addr string, end <-chan error) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ended := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, err = io.Copy(io.Discard, c)
		ended <- err
	}()
	return l.Addr().String(), ended
}

func await(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the receiver's connection stays open")
		return nil
	}
}

func stays(t *testing.T, end <-chan error) {
	t.Helper()
	select {
	case err := <-end:
		t.Errorf("a connection that was to stay has ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

func everything(Socket) bool { return true }

func TestCutResetsBothEnds(t *testing.T) {
	for _, tt := range []struct{ name, network, listen, dial string }{
		{"ipv4", "tcp4", "127.0.0.1:0", ""},
		{"ipv6", "tcp6", "[::1]:0", ""},
		{"ipv4 by an ipv6 socket", "tcp4", "127.0.0.1:0", "mapped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cg := testutil.NewCgroup(t)
			addr, end := receiver(t, tt.network, tt.listen)
			otherAddr, otherEnd := receiver(t, tt.network, tt.listen)
			h := hold(t, cg, tt.dial+"tcp "+addr)
			hold(t, nil, "tcp "+otherAddr) // the control: born elsewhere
			n, err := Cut(cg.ID, everything)
			if err != nil || n != 1 {
				t.Fatalf("cut %d, %v; want 1", n, err)
			}
			if err := await(t, end); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the receiver: %v, want ECONNRESET", err)
			}
			h.expect(t, "0 ECONNABORTED")
			stays(t, otherEnd)
		})
	}
}

func TestCutLeavesWhatIsNotDenied(t *testing.T) {
	cg := testutil.NewCgroup(t)
	keep, keepEnd := receiver(t, "tcp4", "127.0.0.1:0")
	drop, dropEnd := receiver(t, "tcp4", "127.0.0.1:0")
	h := hold(t, cg, "tcp "+keep, "tcp "+drop)
	n, err := Cut(cg.ID, func(s Socket) bool { return s.Remote.String() == drop })
	if err != nil || n != 1 {
		t.Fatalf("cut %d, %v; want 1", n, err)
	}
	if err := await(t, dropEnd); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the receiver: %v, want ECONNRESET", err)
	}
	h.expect(t, "1 ECONNABORTED")
	stays(t, keepEnd)
}

func TestCutEndsConnectedUDP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		cg := testutil.NewCgroup(t)
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		h := hold(t, cg, "udp "+c.LocalAddr().String())
		n, err := Cut(cg.ID, Socket.Connected)
		if err != nil || n != 1 {
			t.Fatalf("%s: cut %d, %v; want 1", address, n, err)
		}
		h.expect(t, "0 ECONNABORTED")
	}
}

func TestCutManyMeasuresUpToTheBatch(t *testing.T) {
	cg := testutil.NewCgroup(t)
	const many = 3*batch + 7
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ends := make(chan error, many)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, err := io.Copy(io.Discard, c)
				ends <- err
			}()
		}
	}()
	hold(t, cg, strings.Split(strings.Repeat("tcp "+l.Addr().String()+"\n", many), "\n")[:many]...)
	if n, err := Cut(cg.ID, everything); err != nil || n != many {
		t.Fatalf("cut %d, %v; want %d", n, err, many)
	}
	for range many {
		if err := await(t, ends); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a receiver: %v, want ECONNRESET", err)
		}
	}
	if left, err := Sockets(cg.ID); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestNobodysCgroupHasNoSockets(t *testing.T) {
	cg := testutil.NewCgroup(t)
	if n, err := Cut(cg.ID, everything); n != 0 || err != nil {
		t.Errorf("cut %d, %v", n, err)
	}
}

func TestDestroyTwiceIsFine(t *testing.T) {
	cg := testutil.NewCgroup(t)
	addr, _ := receiver(t, "tcp4", "127.0.0.1:0")
	hold(t, cg, "tcp "+addr)
	sockets, err := Sockets(cg.ID)
	if err != nil || len(sockets) != 1 {
		t.Fatal(sockets, err)
	}
	for range 2 {
		if err := destroy(sockets); err != nil {
			t.Error(err)
		}
	}
}
