package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/testutil"
)

// serveRaw is a name server that answers with any bytes, over UDP and TCP. nil
// sends nothing; over TCP the connection is then closed.
func serveRaw(t *testing.T, answer func(q []byte, tcp bool) []byte) string {
	t.Helper()
	l, pc := listenBoth(t)
	t.Cleanup(func() { _ = l.Close(); _ = pc.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if b := answer(slices.Clone(buf[:n]), false); b != nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if q, err := readFrame(c); err == nil {
					_, _ = c.Write(answer(q, true))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// header returns an answer's header and question for q, with so many answers.
func header(q []byte, answers uint16) []byte {
	end := headerSize
	for q[end] != 0 {
		end += 1 + int(q[end])
	}
	b := slices.Clone(q[:end+5])
	b[2], b[3] = 0x81, 0x80
	binary.BigEndian.PutUint16(b[6:], answers)
	binary.BigEndian.PutUint16(b[10:], 0)
	return b
}

// hostileAnswers are answers that no name server should give, each to the right
// question with the right id.
func hostileAnswers() map[string]func(q []byte) []byte {
	a := []byte{0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 66}
	return map[string]func(q []byte) []byte{
		"a pointer to itself": func(q []byte) []byte {
			b := header(q, 1)
			at := len(b)
			return append(append(b, 0xc0|byte(at>>8), byte(at)), a...)
		},
		"two pointers to each other": func(q []byte) []byte {
			b := header(q, 2)
			at := len(b)
			b = append(append(b, 0xc0, byte(at+2)), 0xc0, byte(at))
			return append(b, a...)
		},
		"a pointer forward":       func(q []byte) []byte { return append(append(header(q, 1), 0xc0|0x3f, 0xff), a...) },
		"more records than bytes": func(q []byte) []byte { return append(append(header(q, 65535), 0xc0, 12), a...) },
		"a length beyond the end": func(q []byte) []byte {
			return append(append(header(q, 1), 0xc0, 12), 0, 1, 0, 1, 0, 0, 0, 60, 0xff, 0xff, 203)
		},
		"a short address": func(q []byte) []byte {
			return append(append(header(q, 1), 0xc0, 12), 0, 1, 0, 1, 0, 0, 0, 60, 0, 3, 203, 0, 113)
		},
		"a label of 64": func(q []byte) []byte { return append(append(header(q, 1), 0x40), make([]byte, 80)...) },
		"half a header": func(q []byte) []byte { return q[:6] },
		"an address of another name": func(q []byte) []byte {
			return append(append(header(q, 1), 4, 'e', 'v', 'i', 'l', 0), a...)
		},
		"an address of another class": func(q []byte) []byte {
			return append(append(header(q, 1), 0xc0, 12), 0, 1, 0, 3, 0, 0, 0, 60, 0, 4, 203, 0, 113, 66)
		},
		"an alias to itself, and an address elsewhere": func(q []byte) []byte {
			b := append(append(header(q, 2), 0xc0, 12), 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12)
			return append(append(b, 4, 'e', 'v', 'i', 'l', 0), a...)
		},
	}
}

// Nothing that a name server says opens an address that it does not give for the
// name, keeps anybody waiting without end, or ends the daemon.
func TestHostileUpstreams(t *testing.T) {
	for name, hostile := range hostileAnswers() {
		t.Run(name, func(t *testing.T) {
			server := serveRaw(t, func(q []byte, tcp bool) []byte {
				if b := hostile(q); tcp {
					return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
				} else {
					return b
				}
			})
			r := newRig(t, Limits{}, agentWith(directly("www.example", config.ProtocolTCP, 443)))
			res, _ := newTestResolver(t, server)
			res.timeout = 50 * time.Millisecond
			r.server.upstream = res
			m := r.ask(t, ask("www.example", dns.TypeA))
			if len(m.Answer) != 0 {
				t.Errorf("answered with %v", m)
			}
			r.judge(t, "203.0.113.66:443", ruleset.TCP, testutil.Deny)
		})
	}
	// Control: the same bytes, made right, are an answer.
	server := serveRaw(t, func(q []byte, _ bool) []byte {
		if q[len(header(q, 0))-3] == byte(dns.TypeAAAA) {
			return header(q, 0)
		}
		return append(append(header(q, 1), 0xc0, 12), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 66)
	})
	r := newRig(t, Limits{}, agentWith(directly("www.example", config.ProtocolTCP, 443)))
	r.server.upstream, _ = newTestResolver(t, server)
	if got := addrOf(t, r.ask(t, ask("www.example", dns.TypeA))); got.String() != "203.0.113.66" {
		t.Errorf("control: %s", got)
	}
}

// Over TCP an answer can end anywhere.
func TestTruncatedTCP(t *testing.T) {
	whole := func(q []byte) []byte {
		b := append(append(header(q, 1), 0xc0, 12), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 66)
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
	}
	for cut := range 50 {
		server := serveRaw(t, func(q []byte, tcp bool) []byte {
			if !tcp {
				b := header(q, 0)
				b[2] |= 2 // TC
				return b
			}
			all := whole(q)
			return all[:min(cut, len(all)-1)]
		})
		r, _ := newTestResolver(t, server)
		if got, err := r.query(t.Context(), "www.example", dns.TypeA); err == nil {
			t.Fatalf("cut at %d: %v", cut, got)
		}
	}
}

// An answer over TCP may have 64 KiB; a limited part of it is used.
func TestOversizedAnswer(t *testing.T) {
	var all []string
	for i := range 2000 {
		all = append(all, fmt.Sprintf("big.example. 60 IN A 203.0.%d.%d", i/250, i%250+1))
	}
	full := zone(t, all...)
	server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m := new(dns.Msg)
			m.SetReply(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
			return
		}
		full(w, q)
	})
	r := newRig(t, Limits{}, agentWith(directly("big.example", config.ProtocolTCP, 443)))
	r.server.upstream, _ = newTestResolver(t, server)
	m := r.ask(t, ask("big.example", dns.TypeA))
	if n := len(m.Answer); n == 0 || n > maxLeaseAddrs {
		t.Errorf("%d addresses are handed out", n)
	}
	// Every address that is answered is open, and no other.
	for _, rr := range m.Answer {
		addr, _ := address(rr, "big.example.", dns.TypeA)
		r.judge(t, netip.AddrPortFrom(addr, 443).String(), ruleset.TCP, testutil.Direct)
	}
	r.judge(t, "203.0.11.200:443", ruleset.TCP, testutil.Deny)
}

func TestAliases(t *testing.T) {
	for name, tt := range map[string]struct {
		rrs  []string
		want string
	}{
		"DNAME with its CNAME": {[]string{"old.example. 60 IN DNAME new.example.", "www.old.example. 60 IN CNAME www.new.example.", "www.new.example. 60 IN A 203.0.113.7"}, "203.0.113.7"},
		"DNAME alone":          {[]string{"old.example. 60 IN DNAME new.example.", "www.new.example. 60 IN A 203.0.113.7"}, "203.0.113.7"},
		"DNAME of the name itself, which does not redirect it": {[]string{"www.old.example. 60 IN DNAME new.example.", "new.example. 60 IN A 203.0.113.7"}, ""},
		"DNAME of another name":                                {[]string{"ld.example. 60 IN DNAME new.example.", "www.new.example. 60 IN A 203.0.113.7"}, ""},
		"DNAME in a circle":                                    {[]string{"old.example. 60 IN DNAME old.example."}, ""},
		"DNAME that grows":                                     {[]string{"example. 60 IN DNAME " + strings.Repeat("a.", 60) + "example."}, ""},
		"CNAME in a circle":                                    {[]string{"www.old.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME www.old.example."}, ""},
		"two CNAMEs":                                           {[]string{"www.old.example. 60 IN CNAME b.example.", "www.old.example. 60 IN CNAME c.example.", "c.example. 60 IN A 203.0.113.7"}, ""},
	} {
		q := ask("www.old.example", dns.TypeA)
		m := new(dns.Msg)
		m.SetReply(q)
		for _, text := range tt.rrs {
			m.Answer = append(m.Answer, record(t, text))
		}
		found, err := extract(q, m)
		if got := fmt.Sprint(found.addrs); err != nil || tt.want != "" && got != "["+tt.want+"]" || tt.want == "" && len(found.addrs) > 0 {
			t.Errorf("%s: %s, %v; want %q", name, got, err, tt.want)
		}
	}
}

// A family that is never answered costs a moment, not the other family.
func TestSilentFamily(t *testing.T) {
	r, _ := newTestResolver(t, "192.0.2.53:53")
	synctest.Test(t, func(t *testing.T) {
		r.ask = func(ctx context.Context, _ string, qtype uint16) (records, error) {
			if qtype == dns.TypeAAAA {
				<-ctx.Done()
				return records{}, context.Cause(ctx)
			}
			return records{addrs("203.0.113.7"), time.Minute}, nil
		}
		start := time.Now() // of the bubble
		got, ttl, err := r.Lookup(t.Context(), "a.example")
		if err != nil || len(got) != 1 || time.Since(start) != familyDelay || ttl != shortTTL {
			t.Errorf("%v for %s, %v, after %s", got, ttl, err, time.Since(start))
		}
		if err := r.Health(); err != nil {
			t.Errorf("health: %v", err)
		}
	})
}

// A dead server is asked first once, then last.
func TestDeadServerIsAskedLast(t *testing.T) {
	var dead, alive atomic.Int32
	silent := serveUpstream(t, func(dns.ResponseWriter, *dns.Msg) { dead.Add(1) })
	full := func(w dns.ResponseWriter, q *dns.Msg) {
		alive.Add(1)
		m := new(dns.Msg)
		m.SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(203, 0, 113, 7)}}
		_ = w.WriteMsg(m)
	}
	r, _ := newTestResolver(t, silent, serveUpstream(t, full))
	r.timeout = 100 * time.Millisecond
	for i := range 10 {
		if _, err := r.query(t.Context(), fmt.Sprintf("n%d.example", i), dns.TypeA); err != nil {
			t.Fatal(err)
		}
	}
	if dead.Load() != 1 || alive.Load() != 10 {
		t.Errorf("the dead server was asked %d times, the other %d", dead.Load(), alive.Load())
	}
}

func TestUpstreamHealth(t *testing.T) {
	var mode atomic.Value
	mode.Store("closed")
	server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		switch mode.Load() {
		case "servfail":
			_ = w.WriteMsg(m.SetRcode(q, dns.RcodeServerFailure))
		case "refused":
			_ = w.WriteMsg(m.SetRcode(q, dns.RcodeRefused))
		case "well":
			_ = w.WriteMsg(m.SetRcode(q, dns.RcodeNameError))
		}
	})
	r, _ := newTestResolver(t, server)
	r.timeout = 20 * time.Millisecond
	n := 0
	look := func(m string, times int, well bool) {
		t.Helper()
		mode.Store(m)
		for range times {
			n++
			_, _ = r.query(t.Context(), fmt.Sprintf("n%d.example", n), dns.TypeA)
		}
		if err := r.Health(); (err == nil) != well {
			t.Errorf("%s %d times: %v", m, times, err)
		}
	}
	look("servfail", 5, true) // a name that cannot be resolved is no server that is down
	look("silent", manyFailures-1, true)
	look("silent", 1, false)
	look("well", 1, true)
	look("refused", manyFailures, false)
	look("well", 1, true)
}

// A failure is kept for a moment, so that a run does not make the node ask and ask.
func TestFailuresAreNotAskedByEveryone(t *testing.T) {
	var asked atomic.Int32
	server := serveUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
	})
	r, _ := newTestResolver(t, server)
	for range 100 {
		if _, err := r.Resolve(t.Context(), "a.example"); err == nil || errors.Is(err, ErrNoSuchName) {
			t.Fatalf("got %v", err)
		}
	}
	if n := asked.Load(); n > 3*2*rounds { // one look-up, or few on a slow machine
		t.Errorf("asked %d times", n)
	}
}

// The program is answered while it still waits, and never with an address.
func TestSlowUpstream(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(directly("a.example", config.ProtocolTCP, 443)))
	synctest.Test(t, func(t *testing.T) {
		r.server.upstream = upstreamFunc(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		start := time.Now() // of the bubble
		m := r.ask(t, ask("a.example", dns.TypeA))
		if m.Rcode != dns.RcodeServerFailure || len(m.Answer) != 0 || time.Since(start) != answerLimit {
			t.Errorf("after %s: %v", time.Since(start), m)
		}
	})
}

// FuzzDirectAnswer gives a run what a name server says about a direct name. The
// answer is well-formed, and every address in it is one where names may lead, and
// is open; nothing else is.
func FuzzDirectAnswer(f *testing.F) {
	q := ask("www.example", dns.TypeA)
	q.Id = 7
	wire := pack(f, q)
	for _, hostile := range hostileAnswers() {
		f.Add(hostile(wire))
	}
	for _, text := range []string{"www.example. 9 IN A 203.0.113.7", "www.example. 9 IN A 127.0.0.1", "www.example. 0 IN A 169.254.169.254"} {
		m := new(dns.Msg)
		m.SetReply(q)
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = []dns.RR{rr}
		f.Add(pack(f, m))
	}
	scope := NewScope()
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newRig(t, Limits{}, agentWith(directly("www.example", config.ProtocolTCP, 443)))
		r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
			answer, err := readAnswer(raw, q)
			if err != nil {
				return nil, err
			}
			found, err := extract(q, answer)
			return found.addrs, err
		})
		asked := pack(t, ask("www.example", dns.TypeA))
		got := r.raw(t, asked, maxUDP)
		m := new(dns.Msg)
		if err := m.Unpack(got); err != nil || len(got) > maxUDP {
			t.Fatalf("%x is answered with %x: %v", raw, got, err)
		}
		for _, rr := range m.Answer {
			addr, ok := address(rr, "www.example.", dns.TypeA)
			if !ok || scope.Check(addr, nil) != nil {
				t.Fatalf("%x opens %v", raw, rr)
			}
			r.judge(t, netip.AddrPortFrom(addr, 443).String(), ruleset.TCP, testutil.Direct)
		}
		if open := r.datapath.Open(testCgroup); open != len(m.Answer) {
			t.Fatalf("%x: %d leases for %v", raw, open, m)
		}
	})
}
