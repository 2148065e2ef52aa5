package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// serveUpstream runs a name server on loopback, over UDP and TCP at one port.
func serveUpstream(t *testing.T, handle func(w dns.ResponseWriter, q *dns.Msg)) string {
	t.Helper()
	l, pc := listenBoth(t)
	for _, s := range []*dns.Server{{Listener: l}, {PacketConn: pc}} {
		s.Handler = dns.HandlerFunc(handle)
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(ended); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-ended })
	}
	return l.Addr().String()
}

// listenBoth finds a port that is free for UDP and TCP.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, pc
		}
		_ = l.Close()
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func record(t *testing.T, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// zone answers from a list of records, like a recursive server that gives the
// whole chain.
func zone(t *testing.T, texts ...string) func(w dns.ResponseWriter, q *dns.Msg) {
	var rrs []dns.RR
	for _, text := range texts {
		rrs = append(rrs, record(t, text))
	}
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, rr := range rrs {
			if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		_ = w.WriteMsg(m)
	}
}

func TestQueryFollowsTheChain(t *testing.T) {
	server := serveUpstream(t, zone(t,
		"cdn.example.net. 30 IN A 192.0.2.1",
		"WWW.example.org. 20 IN CNAME alias.example.org.",
		"alias.example.org. 40 IN CNAME cdn.example.net.",
		"evil.example. 60 IN A 192.0.2.66",
		"cdn.example.net. 30 IN AAAA 2001:db8::1",
	))
	r, _ := newTestResolver(t, server)
	got, err := r.Resolve(t.Context(), "www.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(addrs("2001:db8::1", "192.0.2.1"), got, compareAddrs); diff != "" {
		t.Error(diff)
	}
	found, err := r.query(t.Context(), "www.example.org", dns.TypeA)
	if err != nil || found.ttl != 20*time.Second {
		t.Errorf("TTL %s, %v; want that of the shortest in the chain", found.ttl, err)
	}
}

func TestQueryEndlessChain(t *testing.T) {
	server := serveUpstream(t, zone(t, "a.example. 1 IN CNAME b.example.", "b.example. 1 IN CNAME a.example."))
	r, _ := newTestResolver(t, server)
	if _, err := r.Resolve(t.Context(), "a.example"); !errors.Is(err, ErrNoAddress) {
		t.Errorf("got %v", err)
	}
}

func TestQueryRcodes(t *testing.T) {
	for rcode, want := range map[int]error{dns.RcodeNameError: ErrNoSuchName, dns.RcodeServerFailure: nil, dns.RcodeRefused: nil} {
		server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetRcode(q, rcode)
			_ = w.WriteMsg(m)
		})
		r, _ := newTestResolver(t, server)
		_, err := r.Resolve(t.Context(), "a.example")
		if err == nil || want != nil && !errors.Is(err, want) || want == nil && errors.Is(err, ErrNoSuchName) {
			t.Errorf("%s: %v", dns.RcodeToString[rcode], err)
		}
	}
}

func TestQueryOverTCPWhenTruncated(t *testing.T) {
	var overTCP atomic.Int32
	full := zone(t, "big.example. 30 IN A 192.0.2.1")
	server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
			return
		}
		overTCP.Add(1)
		full(w, q)
	})
	r, _ := newTestResolver(t, server)
	got, err := r.Resolve(t.Context(), "big.example")
	if err != nil || len(got) != 1 || overTCP.Load() != 2 {
		t.Errorf("got %v, %v, %d questions over TCP", got, err, overTCP.Load())
	}
}

func TestQueryWithoutEDNS(t *testing.T) {
	full := zone(t, "old.example. 30 IN A 192.0.2.1")
	server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() == nil {
			full(w, q)
			return
		}
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeFormatError)
		_ = w.WriteMsg(m)
	})
	r, _ := newTestResolver(t, server)
	if got, err := r.Resolve(t.Context(), "old.example"); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

// Every forgery is sent before the true answer, and must be passed over.
func TestQueryPassesForgeriesOver(t *testing.T) {
	forged := record(t, "a.example. 30 IN A 192.0.2.66")
	full := zone(t, "a.example. 30 IN A 192.0.2.1")
	server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		for _, forge := range []func(m *dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Question[0].Name = "b.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeMX },
			func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
			func(m *dns.Msg) { m.Question = nil },
			func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus },
		} {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Answer = []dns.RR{forged}
			forge(m)
			_ = w.WriteMsg(m)
		}
		_, _ = w.Write([]byte{1, 2, 3})
		full(w, q)
	})
	r, _ := newTestResolver(t, server)
	got, err := r.query(t.Context(), "a.example", dns.TypeA)
	if err != nil || len(got.addrs) != 1 || got.addrs[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestQueryNextServer(t *testing.T) {
	broken := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeServerFailure)
		_ = w.WriteMsg(m)
	})
	var silence atomic.Int32
	silent := serveUpstream(t, func(dns.ResponseWriter, *dns.Msg) { silence.Add(1) })
	good := serveUpstream(t, zone(t, "a.example. 30 IN A 192.0.2.1"))
	r, _ := newTestResolver(t, broken, silent, good)
	r.timeout = 500 * time.Millisecond
	if got, err := r.Resolve(t.Context(), "a.example"); err != nil || len(got) != 1 || silence.Load() != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	r, _ = newTestResolver(t, silent)
	r.timeout = 50 * time.Millisecond
	if _, err := r.Resolve(t.Context(), "a.example"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
}

func TestQueryEndsWithItsCaller(t *testing.T) {
	server := serveUpstream(t, func(dns.ResponseWriter, *dns.Msg) {})
	r, _ := newTestResolver(t, server)
	r.timeout = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.query(ctx, "a.example", dns.TypeA); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestQueryReadsResolvConfAgain(t *testing.T) {
	r, dir := newTestResolver(t)
	server := netip.MustParseAddrPort(serveUpstream(t, zone(t, "a.example. 30 IN A 192.0.2.1")))
	conf := filepath.Join(dir, "resolv.conf")
	for _, content := range []string{"nameserver 127.0.0.9\n", "nameserver 127.0.0.1\noptions x\n"} {
		if err := os.WriteFile(conf, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := r.servers()[0].Addr().String(); got != content[11:20] {
			t.Errorf("%q: server %s", content, got)
		}
	}
	r.servers = func() []netip.AddrPort { return []netip.AddrPort{server} }
	if _, err := r.Resolve(t.Context(), "a.example"); err != nil {
		t.Error(err)
	}
	r.servers = func() []netip.AddrPort { return nil }
	if _, err := r.query(t.Context(), "b.example", dns.TypeA); !errors.Is(err, errNoServer) {
		t.Errorf("no server: %v", err)
	}
}
