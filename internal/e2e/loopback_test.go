package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/testutil"
)

// half is a host of which one family is not whole.
type half struct {
	name    string
	sh      string // what takes it away, in the network namespace of the host
	node    string // settings that the host needs to start
	works   string // the family over which names are reached: "4" or "6"
	missing string // the loopback address
	directs bool   // the other family still has addresses and routes of its own
}

const (
	listen6  = "metrics: { listen: \"[::1]:9469\" }\nissuer: { listen: \"[::1]:9471\" }\n"
	no6      = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$f; done"
	no6Lo    = "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6"
	no4Lo    = "ip address del 127.0.0.1/8 dev lo"
	no4Route = "ip -4 route flush table main; ip -4 route flush table local; test -z \"$(ip -4 route show table all)\""
)

func halves() []half {
	return []half{
		{"lo without ::1", no6Lo, "", "4", "::1", true},
		{"IPv6 disabled on all interfaces", no6, "", "4", "::1", false},
		{"no 127.0.0.0/8", no4Lo, listen6, "6", "127.0.0.1", true},
		{"no IPv4 route at all", no4Route, listen6, "6", "127.0.0.1", false},
	}
}

// TestHalfAHost: on a host where one family can't be redirected, programs that ask
// for both reach a listed name by the other one, and what insists is refused by name.
func TestHalfAHost(t *testing.T) {
	for _, tt := range halves() {
		t.Run(tt.name, func(t *testing.T) {
			r := newRealm(t, "getent", "python3")
			sh(t, r.node, tt.sh)
			n := r.newNode(t, options{node: tt.node, files: map[string]string{"agents.d/bot.yaml": namesAgent}, resolv: bothResolv()})
			tt.check(t, n)
			contains(t, "status", n.must(root, n.varvel("status")...), "redirection", "lacks "+tt.missing)
		})
	}
}

// TestHalfANetwork: the same in another network namespace, on a host that is whole.
func TestHalfANetwork(t *testing.T) {
	for _, tt := range halves() {
		t.Run(tt.name, func(t *testing.T) {
			n := newRealm(t, "getent", "python3").newNode(t, options{files: map[string]string{"agents.d/bot.yaml": namesAgent}, resolv: bothResolv()})
			n.addresses(t, "control", "4", "6")
			n.from = n.realm.site(t)
			sh(t, n.from, tt.sh)
			tt.check(t, n)
		})
	}
}

// TestHostLosesALoopback: the answers follow what is there while the daemon runs.
func TestHostLosesALoopback(t *testing.T) {
	n := newRealm(t, "getent", "python3").newNode(t, options{files: map[string]string{"agents.d/bot.yaml": namesAgent}, resolv: bothResolv()})
	for _, step := range []struct{ sh, missing string }{
		{"true", ""}, {no6Lo, "::1"}, {"echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6; ip address replace ::1/128 dev lo", ""},
		{no4Lo, "127.0.0.1"}, {"ip address add 127.0.0.1/8 dev lo", ""},
	} {
		sh(t, n.realm.node, step.sh)
		n.eventually("it is noticed", func() bool {
			status := n.must(root, n.varvel("status")...)
			return step.missing == "" && !strings.Contains(status, "the host lacks") || step.missing != "" && strings.Contains(status, "the host lacks "+step.missing)
		})
		switch step.missing {
		case "":
			n.addresses(t, step.sh, "4", "6")
		case "::1":
			n.addresses(t, step.sh, "4")
		default:
			n.addresses(t, step.sh, "6")
		}
	}
}

// bothResolv names the world's name server over both families: a program's question
// over a family that is not there is refused, and its resolver asks the next one.
func bothResolv() string {
	return "nameserver " + v4(hostNames).String() + "\nnameserver " + v6(hostNames).String() + "\noptions timeout:2\n"
}

// sh carries out a script of root in a network namespace.
func sh(t *testing.T, ns *testutil.NetNS, script string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nsenter", "--net="+ns.Path(), "--", "sh", "-e", "-c", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// addresses checks of which families the addresses are that resolvers find in a run.
func (n *node) addresses(t *testing.T, when string, families ...string) {
	t.Helper()
	for _, r := range resolvers(t, n.dir) {
		out := n.must(alice, n.run("bot", append(r.argv, "exact.e2e.test")...)...)
		for family, sign := range map[string]string{"4": " 198.1", "6": " fd56:"} {
			if want := strings.Contains(strings.Join(families, ""), family); want != strings.Contains(out, sign) {
				t.Errorf("%s: %s: IPv%s %t, want %t: %s", when, r.name, family, !want, want, out)
			}
		}
	}
}

// check tries what works on half a host, and what does not.
func (h half) check(t *testing.T, n *node) {
	t.Helper()
	n.addresses(t, h.name, h.works)
	other := map[string]string{"4": "6", "6": "4"}[h.works]
	bot := n.shell("bot")
	bot.do("true") // it is there; earlier runs may still be ending
	id := n.onlyRun()
	// curl asks getaddrinfo for both families, and so does Go.
	contains(t, "curl", bot.do("curl", "-sS", "-m", "10", "http://tool.e2e.test:8080/half").stdout, "done")
	bot.sends("tcp/exact.e2e.test:7000", "ok")
	if n.tool.count("GET /half") != 1 || n.sink.count("from-the-site") == 0 {
		t.Error("what was sent has not arrived")
	}
	endpoints := map[string]string{"4": strings.TrimPrefix(endpoint4, "http://"), "6": strings.TrimPrefix(endpoint6, "http://")}
	if r := bot.do("curl", "-sS", "-g", "-m", "5", "http://"+endpoints[h.works]+"/v1/whoami"); !strings.Contains(r.stdout, id) {
		t.Errorf("the endpoint over IPv%s: %s", h.works, r)
	}
	bot.sends("tcp"+other+"/"+endpoints[other]+":80", "EPERM")
	n.eventually("the reason is recorded", func() bool {
		for _, e := range n.events("--kind", string(audit.KindConnect), "--run", id, "--effect", "deny") {
			if hasRule(e, "no-loopback") && e.Target != nil && strings.Contains(endpoints[other], e.Target.Address.String()) {
				return true
			}
		}
		return false
	})
	// Nothing else is opened by it.
	before := n.sink.unlisted()
	for _, target := range targets(hostUnlisted) {
		bot.sends(target, "E")
	}
	if n.sink.unlisted() != before {
		t.Error("something unlisted has arrived")
	}
}
