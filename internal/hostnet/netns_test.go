package hostnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/testutil"
)

// listenIn opens a listener in a namespace that answers hello, and the namespace.
func listenIn(t *testing.T, ns *testutil.NetNS, address string) (addr netip.AddrPort, handle *os.File) {
	t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	handle, err := os.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	return netip.MustParseAddrPort(l.Addr().String()), handle
}

func TestDialIn(t *testing.T) {
	ns := testutil.NewNetNS(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		addr, handle := listenIn(t, ns, address)
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			c.Close()
			t.Errorf("control: %s is reached from outside the namespace", addr)
		}
		c, err := DialIn(t.Context(), handle, addr)
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(c)
		if string(said) != "hello" || err != nil || c.RemoteAddr().String() != addr.String() {
			t.Errorf("%s: %q, %v from %s", addr, said, err, c.RemoteAddr())
		}
		c.Close()
	}
}

func TestDialInFails(t *testing.T) {
	ns := testutil.NewNetNS(t)
	_, handle := listenIn(t, ns, "127.0.0.1:0")
	for _, tt := range []struct {
		to   string
		want error
	}{{"127.0.0.1:9", syscall.ECONNREFUSED}, {"[::1]:9", syscall.ECONNREFUSED}, {"192.0.2.1:9", syscall.ENETUNREACH}} {
		if c, err := DialIn(t.Context(), handle, netip.MustParseAddrPort(tt.to)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.to, c, err, tt.want)
		}
	}
	closed, err := os.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if c, err := DialIn(t.Context(), closed, netip.MustParseAddrPort("127.0.0.1:9")); err == nil {
		t.Errorf("a handle that is closed: %v", c)
	}
}

// TestDialInGivesUp: nobody answers, and the caller has had enough.
func TestDialInGivesUp(t *testing.T) {
	ns := testutil.NewNetNS(t)
	_, handle := listenIn(t, ns, "127.0.0.1:0")
	cmd := exec.Command("nsenter", "--net="+ns.Path(), "ip", "-batch", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(in, "link add hole type veth peer name deep\nlink set hole up\nlink set deep up\naddress add 192.0.2.1/24 dev hole\n")
		in.Close()
	}()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("no interface that swallows packets can be made here: %v: %s", err, out)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	if c, err := DialIn(ctx, handle, netip.MustParseAddrPort("192.0.2.7:9")); !errors.Is(err, enough) {
		t.Errorf("%v, %v; want the caller's reason", c, err)
	}
}

// TestCutInOneNamespace: the other namespace's sockets of the cgroup stay.
func TestCutInOneNamespace(t *testing.T) {
	cg := testutil.NewCgroup(t)
	ns := testutil.NewNetNS(t)
	addr, end := receiver(t, "tcp4", "127.0.0.1:0")
	h := hold(t, cg, "tcp "+addr)
	_, handle := listenIn(t, ns, "127.0.0.1:0")
	if n, err := CutIn(handle, cg.ID, everything); n != 0 || err != nil {
		t.Errorf("cut %d, %v in a namespace where the cgroup has none", n, err)
	}
	stays(t, end)
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	if n, err := CutIn(here, cg.ID, everything); n != 1 || err != nil {
		t.Errorf("cut %d, %v; want 1", n, err)
	}
	h.expect(t, "0 ECONNABORTED")
}
