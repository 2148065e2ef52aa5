package e2e

import (
	"debug/buildinfo"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/egress"
)

const namesAgent = `agent: bot
egress:
  - { name: exact.e2e.test, ports: [7000], opaque: true }
  - { name: "*.one.e2e.test", ports: [7000], opaque: true }
  - { name: "**.many.e2e.test", ports: [7000], opaque: true }
  - { name: tool.e2e.test, ports: [8080], opaque: true }
launch: { users: [nobody] }
`

// listedNames and unlistedNames are the names of the zone by that agent's rules.
func listedNames() []string {
	return []string{"exact.e2e.test", "a.one.e2e.test", "a.many.e2e.test", "a.b.many.e2e.test"}
}

func unlistedNames() []string {
	return []string{"other.e2e.test", "one.e2e.test", "a.b.one.e2e.test", "many.e2e.test", "later.e2e.test"}
}

// resolver is a program that prints each name with its addresses, one line a name.
type resolver struct {
	name string
	argv []string
}

const pythonLookup = `
import socket, sys
for name in sys.argv[1:]:
    try:
        print(name, *{a[4][0] for a in socket.getaddrinfo(name, 7000)})
    except socket.gaierror:
        print(name)
`

// Node has two resolvers: lookup asks the C library, resolve is c-ares.
const (
	nodeLookup = `
const dns = require("node:dns").promises;
(async () => {
  for (const name of process.argv.slice(1)) {
    const found = await dns.lookup(name, {all: true}).catch(() => []);
    console.log([name, ...found.map((a) => a.address)].join(" "));
  }
})();`
	caresLookup = `
const dns = require("node:dns").promises;
(async () => {
  for (const name of process.argv.slice(1)) {
    const v4 = await dns.resolve4(name).catch(() => []), v6 = await dns.resolve6(name).catch(() => []);
    console.log([name, ...v4, ...v6].join(" "));
  }
})();`
)

// resolvers are those that can be had here.
func resolvers(t *testing.T, dir string) []resolver {
	t.Helper()
	all := []resolver{
		{"glibc", []string{"sh", "-c", `for n; do echo "$n" $(getent ahosts "$n" | cut -d' ' -f1 | sort -u); done`, "sh"}},
		{"python", []string{"python3", "-c", pythonLookup}},
		{"go", []string{"env", "GODEBUG=netdns=go", bin("client"), "act", "resolve"}},
	}
	if _, err := exec.LookPath("node"); err == nil {
		all = append(all, resolver{"node", []string{"node", "-e", nodeLookup}}, resolver{"c-ares", []string{"node", "-e", caresLookup}})
	} else {
		t.Log("without Node's resolvers: node is not installed")
	}
	if cgo(t) {
		all = append(all, resolver{"cgo", []string{"env", "GODEBUG=netdns=cgo", bin("client"), "act", "resolve"}})
	} else {
		t.Log("without Go's cgo resolver: the tests are built without cgo")
	}
	gcc, err := exec.LookPath("musl-gcc")
	if err != nil {
		t.Log("without musl's resolver: musl-gcc is not installed")
		return all
	}
	out := filepath.Join(dir, "musl")
	if b, err := exec.Command(gcc, "-static", "-O1", "-o", out, "testdata/lookup.c").CombinedOutput(); err != nil {
		t.Fatalf("musl-gcc: %v: %s", err, b)
	}
	return append(all, resolver{"musl", []string{out}})
}

// cgo reports whether the tests' own program has the resolver of the C library.
func cgo(t *testing.T) bool {
	t.Helper()
	info, err := buildinfo.ReadFile(bin("client"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range info.Settings {
		if s.Key == "CGO_ENABLED" {
			return s.Value == "1"
		}
	}
	return false
}

// TestNames lets the resolvers of several languages ask, with resolver
// configurations as they are found.
func TestNames(t *testing.T) {
	const upstreams = "dns: { upstreams: [192.0.2.53] }\n"
	tests := []struct {
		name, resolv, node string
		control            bool // unconfined programs can resolve
	}{
		{"a name server in the world", "nameserver 192.0.2.53\n", "", true},
		{"ndots and three search domains", "nameserver 192.0.2.53\nsearch corp.test svc.e2e.test e2e.test\noptions ndots:5\n", "", true},
		{"a stub at 127.0.0.53", "nameserver 127.0.0.53\noptions edns0 trust-ad\n", upstreams, false},
		{"over TCP", "nameserver 192.0.2.53\noptions use-vc edns0 single-request\n", "", true},
		{"a name server with an IPv6 address", "nameserver 2001:db8::35\n", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newRealm(t, "getent", "python3").newNode(t, options{
				node: tt.node, resolv: tt.resolv, files: map[string]string{"agents.d/bot.yaml": namesAgent},
			})
			all := resolvers(t, n.dir)
			for _, r := range all {
				n.resolves(r)
			}
			n.reachesNames()
			n.onlyListedLeft()
			if !tt.control {
				return
			}
			for _, r := range all {
				out := n.must(alice, append(slices.Clone(r.argv), "other.e2e.test")...)
				contains(t, r.name+" unconfined", out, v4(hostNamed).String())
			}
			if n.asked(t, "other.e2e.test") == 0 {
				t.Error("the control has not arrived at the world's name server")
			}
		})
	}
}

// resolves checks what one resolver finds in a run.
func (n *node) resolves(r resolver) {
	n.t.Helper()
	names := append(listedNames(), unlistedNames()...)
	res := n.do(alice, n.run("bot", append(slices.Clone(r.argv), names...)...)...)
	lines := strings.Split(strings.TrimSpace(res.stdout), "\n")
	if len(lines) < len(names) {
		n.t.Fatalf("%s: %s", r.name, res)
	}
	for i, name := range names {
		fields := strings.Fields(lines[i])
		if fields[0] != name {
			n.t.Fatalf("%s: line %d is not about %s: %s", r.name, i, name, res)
		}
		listed := i < len(listedNames())
		if listed != (len(fields) > 1) {
			n.t.Errorf("%s: %s: listed %v, found %v", r.name, name, listed, fields[1:])
		}
		for _, f := range fields[1:] {
			a, err := netip.ParseAddr(f)
			if err != nil || !egress.Synthetic4().Contains(a) && !egress.Synthetic6().Contains(a) {
				n.t.Errorf("%s: %s has the address %s, which is not synthetic", r.name, name, f)
			}
		}
	}
}

// reachesNames connects to listed names, and asks for what is empty or unlisted.
func (n *node) reachesNames() {
	n.t.Helper()
	got := n.must(alice, n.run("bot", "curl", "-sS", "-m", "10", "http://tool.e2e.test:8080/curl")...)
	if got != "done\n" || n.tool.count("GET /curl") != 1 {
		n.t.Errorf("curl got %q", got)
	}
	for i, name := range listedNames() {
		mark := "mark-" + string(rune('a'+i))
		n.must(alice, n.run("bot", bin("client"), "act", "send", mark, "tcp/"+name+":7000")...)
		if n.sink.count(at(v4(hostNamed)), mark)+n.sink.count(at(v6(hostNamed)), mark) != 1 {
			n.t.Errorf("what was sent to %s has not arrived once", name)
		}
	}
	r := n.do(alice, n.run("bot", bin("client"), "act", "send", "wrong-port", "tcp/exact.e2e.test:7001")...)
	contains(n.t, "a port that no rule has", r.stdout, "EPERM")
	for _, kind := range []string{"HTTPS", "SVCB", "MX", "TXT"} {
		out := n.must(alice, n.run("bot", bin("client"), "act", "ask", kind, "exact.e2e.test", "other.e2e.test")...)
		contains(n.t, kind, out, "exact.e2e.test NOERROR 0\n", "other.e2e.test NXDOMAIN 0\n")
	}
}

// onlyListedLeft checks that the world was asked for listed names only.
func (n *node) onlyListedLeft() {
	n.t.Helper()
	listed := append(listedNames(), "tool.e2e.test")
	for _, name := range n.questions(n.t) {
		if !slices.Contains(listed, name) {
			n.t.Errorf("the world's name server was asked for %s", name)
		}
	}
	if len(n.questions(n.t)) == 0 {
		n.t.Error("the world's name server was asked nothing: the test shows nothing")
	}
}
