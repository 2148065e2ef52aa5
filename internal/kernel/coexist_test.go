package kernel

import (
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
	"github.com/varvel/varvel/internal/workload"
)

// placement is where somebody else's program is, seen from ours.
type placement struct {
	name   string
	parent bool // on the cgroup above that of the runs; else on the same
	early  bool // attached before ours
	flags  uint32
	first  bool // it runs before ours
}

// placements are all orders that there are. A cgroup's own programs run before
// those of the cgroups above it, whenever they were attached, but for those that
// ask for the opposite (kernel/bpf/cgroup.c, compute_effective_progs).
func placements() []placement {
	return []placement{
		{name: "same cgroup, attached before", early: true, first: true},
		{name: "same cgroup, attached after"},
		{name: "same cgroup, attached after, at the head", flags: flagBefore, first: true},
		{name: "parent cgroup, attached before", parent: true, early: true},
		{name: "parent cgroup, attached after", parent: true},
		{name: "parent cgroup, preorder", parent: true, flags: flagPreorder, first: true},
	}
}

// envWith is a test environment with programs of somebody else in that place,
// until they are removed.
func envWith(t *testing.T, p placement, programs ...foreign) (e *testEnv, remove func()) {
	t.Helper()
	var removes []func()
	add := func(c *workload.Cgroups) {
		at := c.Runs
		if p.parent {
			at = filepath.Dir(c.Runs)
		}
		for _, f := range programs {
			removes = append(removes, f.add(t, at, p.flags))
		}
	}
	before := func(c *workload.Cgroups) {
		serveLocally(t)
		if p.early {
			add(c)
		}
	}
	e = newTestEnvAfter(t, before)
	if !p.early {
		add(e.cgroups)
	}
	return e, func() {
		for _, f := range removes {
			f()
		}
	}
}

// serveLocally makes the addresses of backends this machine's own.
func serveLocally(t *testing.T) {
	t.Helper()
	for _, args := range []string{"route add local 198.51.100.0/24 dev lo", "-6 addr add 2001:db8:1::7/128 dev lo nodad"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

// The service's address, and its backend's.
var (
	service4 = netip.MustParseAddrPort("203.0.113.10:443")
	service6 = netip.MustParseAddrPort("[2001:db8:2::10]:443")
	backend4 = netip.MustParseAddrPort("198.51.100.7:8443")
	backend6 = netip.MustParseAddrPort("[2001:db8:1::7]:8443")
)

func serviceProxy() []foreign {
	return []foreign{
		rewrite(ebpf.AttachCGroupInet4Connect, service4, backend4), rewrite(ebpf.AttachCGroupInet6Connect, service6, backend6),
		rewrite(ebpf.AttachCGroupUDP4Sendmsg, service4, backend4), rewrite(ebpf.AttachCGroupUDP6Sendmsg, service6, backend6),
	}
}

// TestServiceProxy: somebody else's program turns a service's address into a
// backend's. Nothing reaches a backend that is not listed, in any order; and
// what is listed works in every order.
func TestServiceProxy(t *testing.T) {
	for _, p := range placements() {
		t.Run(p.name, func(t *testing.T) {
			e, _ := envWith(t, p, serviceProxy()...)
			control := testutil.NewCgroup(t)
			for _, f := range serviceProxy() {
				f.add(t, control.Path, 0)
			}
			receivers := map[string]*receiver{}
			for i, tt := range []struct {
				action, network  string
				service, backend netip.AddrPort
			}{
				{"try", "tcp4", service4, backend4}, {"try", "tcp6", service6, backend6},
				{"try", "udp4", service4, backend4}, {"try", "udp6", service6, backend6},
				{"sendto", "udp4", service4, backend4}, {"sendto", "udp6", service6, backend6},
			} {
				r := receivers[tt.network]
				if r == nil {
					r = receive(t, tt.network, tt.backend.String())
					receivers[tt.network] = r
				}
				before := r.settle()
				in(t, control.Path, tt.action, tt.network, tt.service.String())
				if r.settle() != before+1 {
					t.Fatalf("control: %s %s does not reach the backend", tt.action, tt.network)
				}
				for j, listed := range [][]netip.AddrPort{nil, {tt.service}, {tt.backend}, {tt.service, tt.backend}} {
					e.tryService(t, p, fmt.Sprintf("run_%d_%d", i, j), r, tt.action, tt.network, tt.service, tt.backend, listed)
				}
			}
		})
	}
}

// tryService asks for the service in a run that has those addresses.
func (e *testEnv) tryService(t *testing.T, p placement, name string, r *receiver, action, network string, service, backend netip.AddrPort, listed []netip.AddrPort) {
	t.Helper()
	cgroup, run := e.newRun(t, name, false)
	e.allowAll(t, run, listed...)
	has := func(a netip.AddrPort) bool { return len(listed) == 2 || len(listed) == 1 && listed[0] == a }
	arrives, reason := has(backend) && (p.first || has(service)), "no-rule"
	if !p.first && has(service) {
		reason = "rewritten"
	}
	before := r.settle()
	said := in(t, cgroup, action, network, service.String())
	what := fmt.Sprintf("%s %s, listed %v: %q", action, network, listed, said)
	if got := r.settle() - before; got != map[bool]int64{true: 1}[arrives] {
		t.Errorf("%s: %d arrived, to arrive: %v", what, got, arrives)
	}
	c, err := e.Counters(run)
	if err != nil || arrives && c.Total() != 0 || !arrives && (c.Refused[reason] == 0 || len(c.Refused) != 1) {
		t.Errorf("%s: refused %v, %v; want %s if it does not arrive", what, c.Refused, err, reason)
	}
}

// allowAll lets a run reach exactly these addresses.
func (e *testEnv) allowAll(t *testing.T, run uint64, listed ...netip.AddrPort) {
	t.Helper()
	rs := &ruleset.RuleSet{ID: fmt.Sprint(run, listed)}
	for i, a := range listed {
		rs.PortSets = append(rs.PortSets, ports(a.Port(), a.Port()))
		rs.Entries = append(rs.Entries, ruleset.Entry{Prefix: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), PortSet: uint32(i)})
	}
	if err := e.LoadRuleSet(rs); err != nil {
		t.Fatal(err)
	}
	if err := e.UseRuleSet(run, rs.ID); err != nil {
		t.Fatal(err)
	}
}

// TestForeignDenial: a denial holds, whoever else is asked and whatever they
// answer; and what others deny is not counted as ours.
func TestForeignDenial(t *testing.T) {
	sockAddr := func(v int32) foreign { return verdict(ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, v) }
	for _, p := range placements() {
		for _, tt := range []struct {
			name           string
			program        foreign
			listed, denied string // what a run hears; "" arrives
		}{
			{"allows", sockAddr(1), "ok", "EPERM"},
			{"denies", sockAddr(0), "EPERM", "EPERM"},
			{"denies otherwise", retval(ebpf.AttachCGroupInet4Connect, unix.ECONNREFUSED, 0), "ECONNREFUSED", ""},
			{"forgives", retval(ebpf.AttachCGroupInet4Connect, 0, 1), "ok", ""},
		} {
			t.Run(p.name+" "+tt.name, func(t *testing.T) {
				e, _ := envWith(t, p, tt.program)
				cgroup, run := e.newRun(t, "run_a", false)
				listed, unlisted := receive(t, "tcp4", "198.51.100.7:0"), receive(t, "tcp4", "198.51.100.8:0")
				e.allowAll(t, run, netip.MustParseAddrPort(listed.addr))
				if got := in(t, cgroup, "try", "tcp4", listed.addr); !strings.HasPrefix(got, tt.listed) {
					t.Errorf("listed: %q, want %q", got, tt.listed)
				}
				if n := listed.settle(); n != map[bool]int64{true: 1}[tt.listed == "ok"] {
					t.Errorf("listed: %d arrived", n)
				}
				if c, err := e.Counters(run); err != nil || c.Total() != 0 {
					t.Errorf("we count what others deny: %v, %v", c.Refused, err)
				}
				got := in(t, cgroup, "try", "tcp4", unlisted.addr)
				if n := unlisted.settle(); n != 0 || strings.HasPrefix(got, "ok") || tt.denied != "" && got != tt.denied {
					t.Errorf("unlisted: %q, %d arrived", got, n)
				}
				if c, err := e.Counters(run); err != nil || c.Refused["no-rule"] == 0 {
					t.Errorf("our denial is not counted: %v, %v", c.Refused, err)
				}
				if got := in(t, testutil.NewCgroup(t).Path, "try", "tcp4", unlisted.addr); !strings.HasPrefix(got, "ok") {
					t.Errorf("control: %q", got)
				}
			})
		}
	}
}

// reaches tries to send something there, and looks at what arrives.
func reaches(t *testing.T, cgroup string, r *receiver, want bool) {
	t.Helper()
	before := r.received.Load()
	said := in(t, cgroup, "try", "tcp4", r.addr)
	r.settle()
	if arrived := r.received.Load() > before; arrived != want || strings.HasPrefix(said, "ok") != want {
		t.Errorf("%s: %q, arrived %v, want %v", r.addr, said, arrived, want)
	}
}

// TestAddressDeny: what systemd denies to a unit is denied to a run in it, and
// what Varvel denies as well, in every order.
func TestAddressDeny(t *testing.T) {
	denied := netip.MustParsePrefix("198.51.100.8/32")
	for _, p := range placements() {
		for _, attach := range []ebpf.AttachType{ebpf.AttachCGroupInetEgress, ebpf.AttachCGroupInetIngress} {
			t.Run(fmt.Sprint(p.name, " ", attach), func(t *testing.T) {
				e, remove := envWith(t, p, addressDeny(t, attach, denied))
				cgroup, run := e.newRun(t, "run_a", false)
				good, theirs, ours := receive(t, "tcp4", "198.51.100.7:0"), receive(t, "tcp4", "198.51.100.8:0"), receive(t, "tcp4", "198.51.100.9:0")
				e.allowAll(t, run, netip.MustParseAddrPort(good.addr), netip.MustParseAddrPort(theirs.addr))
				reaches(t, cgroup, good, true)
				reaches(t, cgroup, theirs, false)
				reaches(t, cgroup, ours, false)
				remove()
				reaches(t, cgroup, theirs, true)
				reaches(t, cgroup, ours, false)
				reaches(t, "", ours, true)
				if c, err := e.Counters(run); err != nil || c.Total() != c.Refused["no-rule"] || c.Total() == 0 {
					t.Errorf("counters %v, %v; want ours alone", c.Refused, err)
				}
			})
		}
	}
}

// TestRewriteCannotReachTheDoor: somebody else's program sends a connection that
// was allowed to go elsewhere to the daemon, or to a service of the host.
func TestRewriteCannotReachTheDoor(t *testing.T) {
	e := newTestEnvAfter(t, func(*workload.Cgroups) { serveLocally(t) })
	cgroup, run := e.newRun(t, "run_a", false)
	e.allowAll(t, run, service4)
	visitors, d := e.openDoors(t)
	host := receive(t, "tcp4", "127.0.0.1:0")
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), d.TCP4), netip.MustParseAddrPort(host.addr)} {
		program := rewrite(ebpf.AttachCGroupInet4Connect, service4, to)
		remove := program.add(t, e.cgroups.Runs, 0)
		control := testutil.NewCgroup(t)
		program.add(t, control.Path, 0)
		if got := in(t, control.Path, "try", "tcp4", service4.String()); !strings.HasPrefix(got, "ok") {
			t.Errorf("control, to %s: %q", to, got)
		}
		if to.Port() == d.TCP4 && next(t, visitors).err != ErrNotRedirected {
			t.Error("control: the door has not seen it")
		}
		before := host.settle()
		got := in(t, cgroup, "try", "tcp4", service4.String())
		if n := host.settle() - before; n != 0 || len(visitors) != 0 || strings.HasPrefix(got, "ok") {
			t.Errorf("to %s: %q; %d reached the host's service, %d the door", to, got, n, len(visitors))
		}
		remove()
	}
	if c, err := e.Counters(run); err != nil || c.Refused["peer-foreign"] == 0 {
		t.Errorf("counters %v, %v", c.Refused, err)
	}
}

// TestOthersAreSeen: an operator can see who else is asked, and in which order.
func TestOthersAreSeen(t *testing.T) {
	for _, p := range placements() {
		t.Run(p.name, func(t *testing.T) {
			e, remove := envWith(t, p, serviceProxy()...)
			others, err := e.Others()
			if err != nil {
				t.Fatal(err)
			}
			var hooks []string
			for _, o := range others {
				if o.Name != foreignName {
					continue // of this machine
				}
				hooks = append(hooks, o.Hook)
				if o.Before != p.first {
					t.Errorf("%+v; is before ours: %v", o, p.first)
				}
			}
			if want := "connect4 connect6 sendmsg4 sendmsg6"; strings.Join(hooks, " ") != want {
				t.Errorf("seen at %v, want %s", hooks, want)
			}
			remove()
			others, err = e.Others()
			for _, o := range others {
				if o.Name == foreignName {
					t.Errorf("%+v was taken away", o)
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNameServiceProxy: the name server's own address is a service's. Questions
// come to Varvel's, and the answer from the server that was asked; but if the
// other program is asked first, we are not told which that was.
func TestNameServiceProxy(t *testing.T) {
	asked, backend := netip.MustParseAddrPort("203.0.113.53:53"), netip.MustParseAddrPort("198.51.100.53:53")
	for _, p := range placements() {
		t.Run(p.name, func(t *testing.T) {
			e, _ := envWith(t, p,
				rewrite(ebpf.AttachCGroupInet4Connect, asked, backend), rewrite(ebpf.AttachCGroupUDP4Sendmsg, asked, backend),
				rewrite(ebpf.AttachCGroupUDP4Recvmsg, backend, asked))
			cgroup, run := e.newRun(t, "run_a", false)
			e.openDoors(t)
			server := receive(t, "udp4", backend.String())
			control := testutil.NewCgroup(t)
			rewrite(ebpf.AttachCGroupUDP4Sendmsg, asked, backend).add(t, control.Path, 0)
			if in(t, control.Path, "sendto", "udp4", asked.String()); server.settle() != 1 {
				t.Error("control: the question does not reach the backend")
			}
			want := asked // what getpeername and recvfrom tell
			if p.first {
				want = backend
			}
			for _, how := range []string{"connected", "unconnected"} {
				if got := in(t, cgroup, "query", how, asked.String()); got != runWord(run)+" from "+want.String() {
					t.Errorf("%s: %q, want an answer from %s", how, got, want)
				}
			}
			if server.settle() != 1 {
				t.Error("a question of the run reached the backend")
			}
		})
	}
}
