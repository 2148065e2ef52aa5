package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
)

// unlimited never slows a benchmark down.
func unlimited() Limits { return Limits{Queries: 1e12, QueryBurst: 1e9} }

// BenchmarkDNS is an answer over loopback. Compare with BenchmarkEcho.
func BenchmarkDNS(b *testing.B) {
	for name, host := range map[string]string{"allowed": "api.example.com", "unlisted": "evil.example", "direct": "turn.example.com"} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, unlimited(), agentWith(named("api.example.com", 443), directly("turn.example.com", config.ProtocolAny, 443)))
			r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
				return addrs("203.0.113.7", "2001:db8::7"), nil
			})
			roundTrips(b, r.serveUDP(b, "127.0.0.1:0"), pack(b, ask(host, dns.TypeA)))
		})
	}
}

// BenchmarkEcho is the baseline: a server that sends back what it gets.
func BenchmarkEcho(b *testing.B) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for ctx.Err() == nil {
			n, from, err := readFrom(pc, buf)
			if err == nil {
				_ = writeTo(pc, buf[:n], from)
			}
		}
	}()
	b.Cleanup(func() { cancel(); _ = pc.Close(); <-ended })
	roundTrips(b, pc.LocalAddr().String(), pack(b, ask("api.example.com", dns.TypeA)))
}

func roundTrips(b *testing.B, server string, question []byte) {
	c, err := net.Dial("udp", server)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(question); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAnswer is the handler alone, without a socket.
func BenchmarkAnswer(b *testing.B) {
	r := newRig(b, unlimited(), agentWith(named("api.example.com", 443)))
	wire := pack(b, ask("api.example.com", dns.TypeA))
	b.ReportAllocs()
	for b.Loop() {
		if r.raw(b, wire, maxUDP) == nil {
			b.Fatal("no answer")
		}
	}
}

// BenchmarkAnswerManyPatterns shows what many wildcards cost a name that none
// of them covers.
func BenchmarkAnswerManyPatterns(b *testing.B) {
	var rules []config.EgressRule
	for i := range 500 {
		rules = append(rules, named(fmt.Sprintf("*.d%d.example", i), 443))
	}
	r := newRig(b, unlimited(), agentWith(rules...))
	wire := pack(b, ask("a.b.c.evil.test", dns.TypeA))
	for b.Loop() {
		if r.raw(b, wire, maxUDP) == nil {
			b.Fatal("no answer")
		}
	}
}
