package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/testutil"
)

// requireProgram skips a test for which a program is missing, and says which.
func requireProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s", name)
	}
}

func TestDig(t *testing.T) {
	requireProgram(t, "dig")
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	host, udpPort, _ := net.SplitHostPort(r.serveUDP(t, "127.0.0.1:0"))
	_, tcpPort, _ := net.SplitHostPort(r.serveTCP(t, "127.0.0.1:0"))
	dig := func(port string, args ...string) string {
		t.Helper()
		args = append([]string{"@" + host, "-p", port, "+time=5", "+tries=1"}, args...)
		out, err := exec.CommandContext(t.Context(), "dig", args...).CombinedOutput()
		if err != nil {
			t.Errorf("dig %v: %v", args, err)
		}
		return string(out)
	}
	for _, tt := range []struct {
		port string
		args []string
		want []string
	}{
		{udpPort, []string{"api.example.com", "A"}, []string{"status: NOERROR", "ANSWER: 1", "198.1"}},
		{udpPort, []string{"api.example.com", "AAAA"}, []string{"fd56:6172:7665:6c00:"}},
		{udpPort, []string{"aPi.eXample.com", "A"}, []string{"aPi.eXample.com.\t60"}},
		{udpPort, []string{"api.example.com", "HTTPS"}, []string{"status: NOERROR", "ANSWER: 0", "SOA"}},
		{udpPort, []string{"evil.example", "A"}, []string{"status: NXDOMAIN", "EDE: 15 (Blocked)", "no rule and no tool"}},
		{udpPort, []string{"evil.example", "A", "+noedns"}, []string{"status: NXDOMAIN"}},
		{udpPort, []string{"api.example.com", "+edns=1", "+noednsneg"}, []string{"status: BADVERS"}},
		{udpPort, []string{"api.example.com", "+opcode=NOTIFY"}, []string{"status: NOTIMP"}},
		{udpPort, []string{"version.bind", "TXT", "CH"}, []string{"status: REFUSED"}},
		{udpPort, []string{"-x", "127.0.0.1"}, []string{"localhost."}},
		{tcpPort, []string{"+tcp", "api.example.com", "A"}, []string{"status: NOERROR", "ANSWER: 1"}},
		{tcpPort, []string{"+tcp", "+keepopen", "api.example.com", "A", "evil.example", "A"}, []string{"status: NOERROR", "status: NXDOMAIN"}},
	} {
		out := dig(tt.port, tt.args...)
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("dig %v: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}

func TestGoResolver(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	udp, tcp := r.serveUDP(t, "127.0.0.1:0"), r.serveTCP(t, "127.0.0.1:0")
	for _, network := range []string{"udp", "tcp"} {
		resolver := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, map[string]string{"udp": udp, "tcp": tcp}[network])
		}}
		got, err := resolver.LookupNetIP(t.Context(), "ip", "api.example.com")
		if err != nil || len(got) != 2 || !IsSynthetic(got[0]) || !IsSynthetic(got[1]) {
			t.Errorf("%s: %v, %v", network, got, err)
			continue
		}
		names, err := resolver.LookupAddr(t.Context(), got[0].Unmap().String())
		if err != nil || len(names) != 1 || names[0] != "api.example.com." {
			t.Errorf("%s: names %v, %v", network, names, err)
		}
		_, err = resolver.LookupNetIP(t.Context(), "ip", "evil.example")
		var notFound *net.DNSError
		if !errors.As(err, &notFound) || !notFound.IsNotFound {
			t.Errorf("%s: unlisted: %v", network, err)
		}
	}
}

// TestMuslSearch asks the series that musl asks with ndots:5 and three search
// domains (name_from_dns_search in src/network/lookup_name.c): A and AAAA at
// once, each domain first, the name itself last; only NXDOMAIN lets it go on.
func TestMuslSearch(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	server := r.serveUDP(t, "127.0.0.1:0")
	series := []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local", ""}
	for i, suffix := range series {
		name := strings.TrimSuffix("api.example.com."+suffix, ".")
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			q := ask(name, qtype)
			q.Extra = nil // musl has no EDNS
			m := exchange(t, "udp", server, q)
			if last := i == len(series)-1; last {
				addrOf(t, m)
			} else if m.Rcode != dns.RcodeNameError {
				t.Errorf("%s: %v", name, m)
			}
		}
	}
	if s, events := r.stats(t), r.events.taken(); s.Quiet != 6 || s.Answered != 2 || len(events) != 0 {
		t.Errorf("%+v, events %v", s, events)
	}
}

// TestLibcResolvers runs real programs in a network namespace whose port 53
// is the server, with a resolv.conf as in a Kubernetes pod.
func TestLibcResolvers(t *testing.T) {
	testutil.RequireRoot(t)
	for _, name := range []string{"nsenter", "unshare", "mount"} {
		requireProgram(t, name)
	}
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	ns := r.serveInNamespace(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"resolv.conf":   "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
		"nsswitch.conf": "hosts: files dns\n",
		"lookup.c":      muslProgram,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(t *testing.T, command string) string {
		t.Helper()
		script := fmt.Sprintf("mount --bind %[1]s/resolv.conf /etc/resolv.conf && "+
			"mount --bind %[1]s/nsswitch.conf /etc/nsswitch.conf && %[2]s", dir, command)
		cmd := exec.CommandContext(t.Context(), "nsenter", "--net="+ns.Path(), "unshare", "--mount", "sh", "-c", script)
		out, _ := cmd.CombinedOutput() // an unlisted name is a failure for most programs
		return string(out)
	}
	for _, tt := range []struct{ name, program, command, absent string }{
		{"glibc", "getent", "getent ahosts %s", ""},
		{"python", "/usr/bin/python3", `/usr/bin/python3 -c 'import socket; print(*{a[4][0] for a in socket.getaddrinfo("%s", 443)})'`, "gaierror"},
		{"node", "node", `node -e 'require("dns").lookup("%s", {all: true}, (e, a) => console.log(e ? e.code : a.map(x => x.address).join(" ")))'`, "ENOTFOUND"},
		{"musl", "musl-gcc", "musl-gcc -o " + dir + "/lookup " + dir + "/lookup.c && " + dir + "/lookup %s", "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			requireProgram(t, tt.program)
			r.events.taken()
			out := run(t, fmt.Sprintf(tt.command, "api.example.com"))
			for _, want := range []string{"198.1", "fd56:6172:7665:6c00:"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in %s", want, out)
				}
			}
			if events := r.events.taken(); len(events) != 0 {
				t.Errorf("the search list made events: %+v", events)
			}
			if out := run(t, fmt.Sprintf(tt.command, "evil.example")); !strings.Contains(out, tt.absent) || strings.Contains(out, "198.1") {
				t.Errorf("unlisted: %s", out)
			}
			if events := r.events.taken(); len(events) == 0 {
				t.Error("an unlisted name made no event")
			}
		})
	}
}

// muslProgram prints the addresses of a name.
const muslProgram = `
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM }, *list;
	char text[128];
	if (getaddrinfo(argv[1], "443", &hint, &list)) {
		puts("not found");
		return 1;
	}
	for (; list; list = list->ai_next)
		if (!getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST))
			puts(text);
	return 0;
}
`

// serveInNamespace runs the rig's server at port 53 of a network namespace.
func (r *rig) serveInNamespace(t *testing.T) *testutil.NetNS {
	t.Helper()
	ns := testutil.NewNetNS(t)
	var pc net.PacketConn
	err := ns.Do(func() (err error) {
		pc, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:53")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.servePackets(t, pc)
	return ns
}
