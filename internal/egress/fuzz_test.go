package egress

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
)

// FuzzQuestion sends bytes to the server. It must not panic; and an answer must
// be one, to this question, within its size, and with no address but those
// that a run may know.
func FuzzQuestion(f *testing.F) {
	for _, name := range []string{"api.example.com", "localhost", "evil.example", "turn.example.com", "a.direct.example", ".", `a\000b.example`, "api.example.com.x.y"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypePTR, dns.TypeANY, dns.TypeAXFR} {
			f.Add(pack(f, ask(name, qtype)))
		}
	}
	f.Add(pack(f, ask("1.0.18.198.in-addr.arpa", dns.TypePTR)))
	f.Add(append(make([]byte, 12), 0xc0, 0x0c, 0, 1, 0, 1))
	r := newRig(f, Limits{Names: 64}, agentWith(named("api.example.com", 443), named("**.wild.example", 443),
		directly("turn.example.com", config.ProtocolUDP, 443), directly("**.direct.example", config.ProtocolAny, 443)))
	r.server.upstream = upstreamFunc(func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "turn.example.com" && !strings.HasSuffix(host, ".direct.example") && !strings.HasSuffix(host, ".wild.example") {
			panic(host + " has left the node")
		}
		return addrs("203.0.113.7"), nil
	})
	f.Fuzz(func(t *testing.T, wire []byte) {
		for _, limit := range []int{maxUDP, maxTCP} {
			raw := r.raw(t, wire, limit)
			if raw == nil {
				if len(wire) >= headerSize && wire[2]&0x80 == 0 {
					t.Fatalf("no answer to %x", wire)
				}
				continue
			}
			checkAnswer(t, wire, raw, limit)
		}
		r.events.taken()
	})
}

func checkAnswer(t *testing.T, wire, raw []byte, limit int) {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("the answer to %x cannot be read: %v", wire, err)
	}
	if !m.Response || m.Id != binary.BigEndian.Uint16(wire) || len(raw) > limit || m.Truncated && limit == maxTCP {
		t.Fatalf("the answer to %x is none: %v", wire, m)
	}
	if len(m.Question) == 1 {
		end := headerSize + bytes.IndexByte(raw[headerSize:], 0) // at most the end of the name
		if !bytes.Equal(raw[headerSize:end], wire[headerSize:end]) {
			t.Fatalf("the question %x comes back changed: %x", wire, raw)
		}
	}
	for _, rr := range m.Answer {
		addr, ok := address(rr, rr.Header().Name, rr.Header().Rrtype)
		host, _ := CanonicalHost(rr.Header().Name)
		direct := host == "turn.example.com" || strings.HasSuffix(host, ".direct.example")
		if ok && !IsSynthetic(addr) && !addr.IsLoopback() && !(direct && addr.String() == "203.0.113.7") {
			t.Fatalf("an address in the answer to %x: %v", wire, m)
		}
	}
	if len(m.Answer) > 0 && m.Rcode != dns.RcodeSuccess {
		t.Fatalf("records in a refusal of %x: %v", wire, m)
	}
}

// FuzzFrames sends bytes to readFrame, and what it reads back through writeFrame.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 2, 1, 2, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, stream []byte) {
		in, out := bytes.NewReader(stream), new(bytes.Buffer)
		for {
			msg, err := readFrame(in)
			if err != nil {
				break
			}
			if err := writeFrame(out, msg); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(stream, out.Bytes()) {
			t.Fatalf("%x became %x", stream, out.Bytes())
		}
	})
}

// FuzzUpstreamAnswer reads bytes as the answer of a name server, which is not
// trusted more than the network.
func FuzzUpstreamAnswer(f *testing.F) {
	q := ask("www.example.org", dns.TypeA)
	q.Id = 7
	m := new(dns.Msg)
	m.SetReply(q)
	for _, text := range []string{"www.example.org. 20 IN CNAME a.example.", "a.example. 1 IN CNAME www.example.org.", "a.example. 9 IN A 192.0.2.1"} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	f.Add(pack(f, m))
	f.Add([]byte{0, 7, 0x80})
	f.Fuzz(func(t *testing.T, raw []byte) {
		answer, err := readAnswer(raw, q)
		if err != nil {
			return
		}
		found, err := extract(q, answer)
		if err != nil && len(found.addrs) > 0 || len(found.addrs) > maxRecords || found.ttl < 0 || found.ttl > maxTTL {
			t.Fatalf("%x gives %v, %v", raw, found, err)
		}
		for _, addr := range found.addrs {
			if !addr.Is4() {
				t.Fatalf("%x gives %s", raw, addr)
			}
		}
	})
}

// FuzzNames compares the names of a plan with what wildcards mean, label by label.
func FuzzNames(f *testing.F) {
	f.Add("*.example.org", "a.example.org")
	f.Add("**.example.org", "b.a.example.org")
	f.Add("Example.org.", "eXample.ORG")
	f.Add("**.a", "a.a.a")
	f.Fuzz(func(t *testing.T, rule, name string) {
		table, err := newNameTable(nil, []config.EgressRule{named(rule, 443)})
		if err != nil {
			return
		}
		host, ok := CanonicalHost(name)
		if !ok {
			return
		}
		if again, ok := CanonicalHost(host); !ok || again != host {
			t.Fatalf("%q is %q and then %q", name, host, again)
		}
		if got, want := table.has(host), covered(lowerASCII(strings.TrimSuffix(rule, ".")), host); got != want {
			t.Fatalf("%q covers %q: %v, want %v", rule, host, got, want)
		}
	})
}

// covered is what a rule's name means: labels compared from the right, "*" for
// one label and "**" for one or more, at the left.
func covered(rule, host string) bool {
	want, got := strings.Split(rule, "."), strings.Split(host, ".")
	for len(want) > 0 && len(got) > 0 {
		last := want[len(want)-1]
		if last == "**" {
			return true
		}
		if last != "*" && last != got[len(got)-1] {
			return false
		}
		want, got = want[:len(want)-1], got[:len(got)-1]
	}
	return len(want) == 0 && len(got) == 0
}

// FuzzReverse reads names as reverse questions; what is one names its address.
func FuzzReverse(f *testing.F) {
	f.Add("1.0.18.198.in-addr.arpa")
	f.Add(strings.Repeat("1.", 32) + "ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		host, ok := CanonicalHost(name)
		if !ok {
			return
		}
		addr, ok := reverseAddr(host)
		if !ok {
			return
		}
		if back, err := dns.ReverseAddr(addr.String()); !addr.Is4In6() && (err != nil || back != host+".") {
			t.Fatalf("%q is %s, which is %q", host, addr, back)
		}
	})
}

// FuzzAllocator asks for names in any order and again.
func FuzzAllocator(f *testing.F) {
	f.Add("a.example b.example a.example")
	f.Fuzz(func(t *testing.T, names string) {
		a, seen := newAllocator("run", 8), map[netip.Addr]string{}
		for _, host := range strings.Fields(names) {
			p, err := a.get(host)
			if errors.Is(err, ErrNoSynthetic) && len(a.byHost) == 8 {
				continue
			}
			for _, addr := range []netip.Addr{p.v4, p.v6} {
				if other, ok := seen[addr]; err != nil || !IsSynthetic(addr) || ok && other != host {
					t.Fatalf("%q has %s, as has %q: %v", host, addr, other, err)
				}
				seen[addr] = host
			}
		}
		if len(seen) != 2*len(a.byHost) {
			t.Fatalf("%d addresses for %d names", len(seen), len(a.byHost))
		}
	})
}

// FuzzFiles reads bytes as hosts and resolv.conf.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("192.0.2.1 a b # c\nnameserver 192.0.2.1\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for host := range parseHosts(content) {
			if canonical, ok := CanonicalHost(host); !ok || canonical != host {
				t.Fatalf("host %q", host)
			}
		}
		if n := len(parseResolvConf(content)); n < 1 || n > maxServers {
			t.Fatalf("%d servers", n)
		}
	})
}

// FuzzCheck judges addresses: what holds an IPv4 address is never judged
// better than that address.
func FuzzCheck(f *testing.F) {
	f.Add(netip.MustParseAddr("64:ff9b::7f00:1").AsSlice())
	f.Add([]byte{127, 0, 0, 1})
	scope := NewScope()
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok || scope.Check(addr, nil) != nil {
			return
		}
		addr = addr.Unmap()
		if addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() || IsSynthetic(addr) {
			t.Fatalf("%s is allowed", addr)
		}
		for _, inner := range embedded(addr) {
			if scope.Check(inner, nil) != nil {
				t.Fatalf("%s is allowed, %s in it is not", addr, inner)
			}
		}
	})
}
