package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	demo "github.com/varvel/varvel/cmd/varvel-demo/world"
	"github.com/varvel/varvel/internal/testutil"
)

// The machines of the world, by the last number of their addresses.
const (
	hostNode     = 1
	hostNames    = 53
	hostListed   = 10 // by address
	hostTool     = 11 // an HTTP service
	hostNamed    = 20 // by name; every name of the zone leads here
	hostUnlisted = 66
	hostRouter   = 254
)

const port = 7000 // of everything that takes whatever comes

// v4 and v6 are the addresses of a machine, from the ranges for documentation
// (RFC 5737, RFC 3849).
func v4(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

func v6(n byte) netip.Addr {
	a := netip.MustParseAddr("2001:db8::").As16()
	a[15] = n
	return netip.AddrFrom16(a)
}

// at is a machine's address with the port that takes whatever comes.
func at(a netip.Addr) string { return netip.AddrPortFrom(a, port).String() }

// realm is what one test has to itself: a node to govern, and the world.
type realm struct {
	dir         string
	node, world *testutil.NetNS
	sink        *sink
	tool        *sink
}

// zone is what the world's name server knows.
func zone() map[string][]netip.Addr {
	z := map[string][]netip.Addr{"tool.e2e.test": {v4(hostTool), v6(hostTool)}}
	for _, name := range []string{
		"exact.e2e.test", "other.e2e.test", "a.one.e2e.test", "a.b.one.e2e.test", "one.e2e.test",
		"a.many.e2e.test", "a.b.many.e2e.test", "via.e2e.test", "many.e2e.test", "later.e2e.test", "late.e2e.test", "direct.e2e.test", "relay.e2e.test",
		"a.wild.e2e.test", tunnelLabel + ".wild.e2e.test",
	} {
		z[name] = []netip.Addr{v4(hostNamed), v6(hostNamed)}
	}
	return z
}

// newRealm makes both machines, the wire between them, and the servers.
func newRealm(t *testing.T, programs ...string) *realm {
	t.Helper()
	require(t, programs...)
	r := &realm{dir: tempDir(t), node: testutil.NewNetNS(t), world: testutil.NewNetNS(t), sink: &sink{}, tool: &sink{}}
	script := "link add wire netns " + r.node.Path() + " type veth peer name wire netns " + r.world.Path()
	batch(t, nil, script)
	configure(t, r.world, hostNames, hostListed, hostTool, hostNamed, hostUnlisted, hostRouter)
	configure(t, r.node, hostNode)
	batch(t, r.node, fmt.Sprintf("route add default via %s\nroute add ::/0 via %s", v4(hostRouter), v6(hostRouter)))
	r.serve(t)
	return r
}

// tempDir makes a folder that every user may enter. t.TempDir is closed to others.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ve2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left that cannot be removed: %v", err)
		}
	})
	for _, d := range []string{dir, filepath.Join(dir, "shared")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "shared"), 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// configure gives a namespace its addresses.
func configure(t *testing.T, ns *testutil.NetNS, hosts ...byte) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, "link set lo up\nlink set wire up")
	for _, h := range hosts {
		// Nobody else is on the wire, so there is no duplicate to wait for.
		fmt.Fprintf(&b, "address add %s/24 dev wire\naddress add %s/64 dev wire nodad\n", v4(h), v6(h))
	}
	batch(t, ns, b.String())
}

// batch runs commands of ip(8), in a namespace if there is one.
func batch(t *testing.T, ns *testutil.NetNS, commands string) {
	t.Helper()
	argv := []string{"ip", "-batch", "-"}
	if ns != nil {
		// A machine may have IPv6 switched off for new namespaces.
		enable := "echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; exec "
		argv = []string{"nsenter", "--net=" + ns.Path(), "--", "sh", "-c", enable + strings.Join(argv, " ")}
	}
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s\n%s", err, out, commands)
	}
}

// serve starts the world's servers in this process.
func (r *realm) serve(t *testing.T) {
	t.Helper()
	log, err := demo.CreateLog(filepath.Join(r.dir, "names.log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		group.Wait()
		log.Close()
	})
	names := &demo.NameServer{Zone: zone(), Any: v4(hostUnlisted), Log: log}
	for _, a := range []netip.Addr{v4(hostNames), v6(hostNames)} {
		udp, tcp := r.listen(t, netip.AddrPortFrom(a, 53))
		group.Go(func() { _ = names.Serve(ctx, udp, tcp) })
	}
	for _, h := range []byte{hostListed, hostNamed, hostUnlisted} {
		for _, a := range []netip.Addr{v4(h), v6(h)} {
			udp, tcp := r.listen(t, netip.AddrPortFrom(a, port))
			group.Go(func() { r.sink.takeUDP(ctx, udp) })
			group.Go(func() { r.sink.takeTCP(ctx, tcp) })
		}
	}
	for _, a := range []netip.Addr{v4(hostTool), v6(hostTool)} {
		udp, tcp := r.listen(t, netip.AddrPortFrom(a, 8080))
		udp.Close()
		srv := &http.Server{Handler: r.tool, ReadHeaderTimeout: 10 * time.Second}
		group.Go(func() {
			defer context.AfterFunc(ctx, func() { srv.Close() })()
			_ = srv.Serve(tcp)
		})
	}
}

// listen opens sockets in the world.
func (r *realm) listen(t *testing.T, on netip.AddrPort) (udp net.PacketConn, tcp net.Listener) {
	t.Helper()
	err := r.world.Do(func() (err error) {
		if udp, err = net.ListenPacket("udp", on.String()); err != nil {
			return err
		}
		tcp, err = net.Listen("tcp", on.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return udp, tcp
}

// questions are the names that arrived at the world's name server.
func (r *realm) questions(t *testing.T) []string {
	t.Helper()
	entries, err := demo.ReadLog(filepath.Join(r.dir, "names.log"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

// asked counts the questions for names with a part.
func (r *realm) asked(t *testing.T, part string) int {
	t.Helper()
	n := 0
	for _, name := range r.questions(t) {
		if strings.Contains(name, part) {
			n++
		}
	}
	return n
}

// sink is a receiver: it takes whatever comes and knows what it was.
type sink struct {
	mu  sync.Mutex
	got []string // "tcp 192.0.2.66:7000 accept", "udp [2001:db8::42]:7000 bytes", "POST /path body"
}

func (s *sink) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, fmt.Sprintf(format, args...))
}

// count is how many arrivals have all of the parts.
func (s *sink) count(parts ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
next:
	for _, line := range s.got {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		n++
	}
	return n
}

// unlisted is what has arrived where nothing should.
func (s *sink) unlisted() int {
	return s.count(" "+at(v4(hostUnlisted))+" ") + s.count(" "+at(v6(hostUnlisted))+" ")
}

func (s *sink) takeTCP(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.add("tcp %s accept", l.Addr())
		group.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.echo(conn, l.Addr())
		})
	}
}

func (s *sink) echo(conn net.Conn, on net.Addr) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			s.add("tcp %s %s", on, buf[:min(n, 200)])
			_, _ = conn.Write(buf[:n])
		}
		if err != nil {
			s.add("tcp %s end %s", on, outcome(err))
			return
		}
	}
}

func (s *sink) takeUDP(ctx context.Context, conn net.PacketConn) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	buf := make([]byte, 64<<10)
	for {
		n, peer, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		s.add("udp %s %s", conn.LocalAddr(), buf[:min(n, 200)])
		_, _ = conn.WriteTo(buf[:n], peer)
	}
}

// ServeHTTP answers every request and knows it.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.add("%s %s %s %v", r.Method, r.URL.RequestURI(), body, err)
	if token := r.Header.Get("Authorization"); token != "" {
		s.add("token %s", token)
	}
	fmt.Fprintln(w, "done")
}
