package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/testutil"
)

// resolvedAnswer is what the node's resolver daemon says of every name.
const resolvedAnswer = "192.0.2.66"

// daemons are the sockets by which programs ask daemons of the node for names:
// systemd-resolved by varlink and by D-Bus, and nscd.
type daemons struct {
	paths []string
	all   atomic.Int64 // connections; what starts a run may make some, too
	inRun atomic.Int64 // of processes in a run's cgroup
}

// newDaemons listens in the node's mount namespace, whose /run becomes its own.
func (n *node) newDaemons() *daemons {
	n.t.Helper()
	d := &daemons{paths: []string{"/run/systemd/resolve/io.systemd.Resolve", "/run/dbus/system_bus_socket", "/run/nscd/socket"}}
	testutil.OnThread(func() {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			n.t.Fatal(err)
		}
		if err := unix.Setns(int(n.mounts.Fd()), unix.CLONE_NEWNS); err != nil {
			n.t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
			n.t.Fatal(err)
		}
		for _, path := range d.paths {
			d.listen(n.t, path)
		}
	})
	n.before = n.mountinfo()
	return d
}

func (d *daemons) listen(t *testing.T, path string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the path means another place by then
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.count(c.(*net.UnixConn))
			go serveVarlink(c)
		}
	}()
}

// count looks at who has connected.
func (d *daemons) count(c *net.UnixConn) {
	d.all.Add(1)
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	var peer *unix.Ucred
	_ = raw.Control(func(fd uintptr) { peer, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if peer == nil {
		return
	}
	cgroup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", peer.Pid))
	if strings.Contains(string(cgroup), "/run_") {
		d.inRun.Add(1)
	}
}

// serveVarlink answers ResolveHostname as systemd-resolved does (varlink.org,
// io.systemd.Resolve): JSON, each message ends with a NUL.
func serveVarlink(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		text, err := in.ReadString(0)
		if err != nil {
			return
		}
		var call struct {
			Method     string
			Parameters struct{ Name string }
		}
		if json.Unmarshal([]byte(strings.TrimSuffix(text, "\x00")), &call) != nil {
			return
		}
		reply := map[string]any{"parameters": map[string]any{
			"name": call.Parameters.Name, "flags": 1,
			"addresses": []any{map[string]any{"ifindex": 1, "family": unix.AF_INET, "address": []int{192, 0, 2, 66}}},
		}}
		b, err := json.Marshal(reply)
		if err != nil {
			return
		}
		if _, err := c.Write(append(b, 0)); err != nil {
			return
		}
	}
}

const pythonConnect = `
import socket, sys
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        print(path, "connected")
    except OSError as e:
        print(path, e.strerror)
`

// TestResolverDaemons: a run reaches none of the daemons by which the node's own
// programs resolve names, and falls through to the name server.
func TestResolverDaemons(t *testing.T) {
	n := newRealm(t, "getent", "python3").newNode(t, options{
		resolv: "nameserver 127.0.0.53\noptions edns0 trust-ad\n", manual: true,
		node:  "dns: { upstreams: [192.0.2.53] }\n",
		files: map[string]string{"agents.d/bot.yaml": reloadAgent(ruleName)},
	})
	d := n.newDaemons()
	n.start()
	connect := []string{"python3", "-c", pythonConnect}
	connect = append(append(connect, d.paths...), "/var/run/nscd/socket")
	out := n.must(alice, connect...)
	if strings.Count(out, " connected\n") != len(d.paths)+1 {
		t.Fatalf("control, unconfined:\n%s", out)
	}
	out = n.must(alice, n.run("bot", connect...)...)
	if strings.Contains(out, " connected\n") || strings.Count(out, "\n") != len(d.paths)+1 || d.inRun.Load() != 0 {
		t.Errorf("a run reaches daemons:\n%s", out)
	}
	n.fallsThrough(d)
	n.fallsThroughResolve(d)
}

// fallsThrough lets the C library ask, which tries nscd first.
func (n *node) fallsThrough(d *daemons) {
	n.t.Helper()
	out := n.must(alice, n.run("bot", "getent", "ahosts", "exact.e2e.test")...)
	contains(n.t, "a listed name", out, "198.1", "fd56:6172:7665:6c00:")
	if r := n.do(alice, n.run("bot", "getent", "ahosts", "other.e2e.test")...); r.code != 2 {
		n.t.Errorf("an unlisted name: %s", r)
	}
	if d.inRun.Load() != 0 {
		n.t.Error("a daemon was asked")
	}
}

// fallsThroughResolve does it with nss-resolve before dns, as distributions with
// systemd-resolved have it.
func (n *node) fallsThroughResolve(d *daemons) {
	n.t.Helper()
	module := os.Getenv("VARVEL_E2E_NSS_RESOLVE")
	if module == "" {
		found, _ := filepath.Glob("/usr/lib/*/libnss_resolve.so.2")
		if len(found) == 0 {
			n.t.Log("without nss-resolve: libnss_resolve.so.2 is not installed, and VARVEL_E2E_NSS_RESOLVE does not name it")
			return
		}
		module = found[0]
	}
	b, err := os.ReadFile(module)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("shared/nss/libnss_resolve.so.2", string(b))
	// In place: what is mounted at /etc/nsswitch.conf is this very file.
	conf := filepath.Join(n.dir, "nsswitch.conf")
	if err := os.WriteFile(conf, []byte("passwd: files\ngroup: files\nhosts: resolve [!UNAVAIL=return] files dns\n"), 0o644); err != nil {
		n.t.Fatal(err)
	}
	lookup := func(name string) []string {
		return []string{"env", "LD_LIBRARY_PATH=" + filepath.Join(n.dir, "shared", "nss"), "getent", "ahosts", name}
	}
	contains(n.t, "nss-resolve, unconfined", n.must(alice, lookup("other.e2e.test")...), resolvedAnswer)
	before := d.all.Load()
	n.must(alice, lookup("other.e2e.test")...)
	if d.all.Load() == before {
		n.t.Fatal("the control has not reached the daemon")
	}
	out := n.must(alice, n.run("bot", lookup("exact.e2e.test")...)...)
	contains(n.t, "nss-resolve in a run", out, "198.1")
	if r := n.do(alice, n.run("bot", lookup("other.e2e.test")...)...); r.code != 2 || strings.Contains(r.stdout, resolvedAnswer) {
		n.t.Errorf("an unlisted name by nss-resolve: %s", r)
	}
	if d.inRun.Load() != 0 {
		n.t.Error("a run has asked the daemon")
	}
}
