package egress

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	rounds     = 2   // how often each server is tried
	maxChain   = 16  // CNAMEs that are followed in one answer
	maxForeign = 100 // datagrams that are no answer to us, until we give up
	maxRecords = 64  // addresses that are taken from one answer
)

var (
	errTruncated = errors.New("the answer is truncated")
	errForeign   = errors.New("it is no answer to the question that was asked")
	errServFail  = errors.New("the server says SERVFAIL")
	errNoServer  = errors.New("there is no name server; set dns.upstreams or a nameserver in resolv.conf")
)

// records are the addresses of one answer and how long they hold.
type records struct {
	addrs []netip.Addr
	ttl   time.Duration
}

// query asks the servers in turn until one gives an answer: addresses, that
// there are none, or that there is no such name.
func (r *Resolver) query(ctx context.Context, host string, qtype uint16) (records, error) {
	servers, errs := r.servers(), []error(nil)
	if len(servers) == 0 {
		return records{}, errNoServer
	}
	servers = r.upstreams.order(servers)
	for range rounds {
		for _, server := range servers {
			found, err := r.queryServer(ctx, server, host, qtype)
			r.noteServer(ctx, server, err)
			if err == nil || errors.Is(err, ErrNoSuchName) {
				return found, err
			}
			if ctx.Err() != nil {
				err = fmt.Errorf("ask name server %s: %w", server, context.Cause(ctx))
				return records{}, r.unanswered(ctx, err)
			}
			errs = append(errs, fmt.Errorf("ask name server %s: %w", server, err))
		}
	}
	return records{}, r.unanswered(ctx, errors.Join(errs...))
}

// noteServer keeps how a server did. One that says SERVFAIL lives: it is the name
// that cannot be resolved, and runs choose names.
func (r *Resolver) noteServer(ctx context.Context, server netip.AddrPort, err error) {
	alive := err == nil || errors.Is(err, ErrNoSuchName) || errors.Is(err, errServFail)
	if alive || !errors.Is(context.Cause(ctx), errLate) {
		r.upstreams.note(server, alive)
	}
	if alive {
		r.upstreams.result(nil)
	}
}

// unanswered notes a look-up without an answer, unless it was given up.
func (r *Resolver) unanswered(ctx context.Context, err error) error {
	if !errors.Is(err, errServFail) && !errors.Is(context.Cause(ctx), errLate) {
		r.upstreams.result(err)
	}
	return err
}

// queryServer asks one server: over UDP with EDNS, without EDNS if it does not
// know that (RFC 6891, section 7), over TCP if the answer does not fit.
func (r *Resolver) queryServer(ctx context.Context, server netip.AddrPort, host string, qtype uint16) (records, error) {
	q, err := newQuery(host, qtype)
	if err != nil {
		return records{}, err
	}
	answer, err := r.exchange(ctx, "udp", server, q)
	if err == nil && (answer.Rcode == dns.RcodeFormatError || answer.Rcode == dns.RcodeNotImplemented) {
		q.Extra = nil
		answer, err = r.exchange(ctx, "udp", server, q)
	}
	if errors.Is(err, errTruncated) {
		answer, err = r.exchange(ctx, "tcp", server, q)
	}
	if err != nil {
		return records{}, err
	}
	return extract(q, answer)
}

// newQuery makes a question with a random id. The kernel adds a random port.
func newQuery(host string, qtype uint16) (*dns.Msg, error) {
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(host), qtype)
	q.Id = binary.BigEndian.Uint16(id[:])
	q.SetEdns0(maxUDP, false)
	return q, nil
}

// exchange sends q and returns its answer. Datagrams that do not answer q are
// passed over: a forger must guess id, port and question at once.
func (r *Resolver) exchange(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		return exchangeTCP(conn, q, wire)
	}
	return exchangeUDP(conn, q, wire)
}

func exchangeUDP(conn net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096) // more than we told the server that we take
	for range maxForeign {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		answer, err := readAnswer(buf[:n], q)
		if !errors.Is(err, errForeign) {
			return answer, err
		}
	}
	return nil, errForeign
}

func exchangeTCP(conn net.Conn, q *dns.Msg, wire []byte) (*dns.Msg, error) {
	if err := writeFrame(conn, wire); err != nil {
		return nil, err
	}
	raw, err := readFrame(conn)
	if err != nil {
		return nil, err
	}
	answer, err := readAnswer(raw, q)
	if errors.Is(err, errTruncated) {
		return nil, errors.New("the answer is truncated, even over TCP")
	}
	return answer, err
}

// readAnswer reads an answer to q. Returns errForeign for what is none, and
// errTruncated for one that did not fit.
func readAnswer(raw []byte, q *dns.Msg) (*dns.Msg, error) {
	answer := new(dns.Msg)
	err := answer.Unpack(raw)
	switch {
	case !answers(answer, q):
		return nil, errForeign
	case answer.Truncated:
		return nil, errTruncated
	case err != nil:
		return nil, fmt.Errorf("the answer cannot be read: %w", err)
	case !counted(raw, answer):
		return nil, errors.New("the answer cannot be read: it has fewer records than its header says")
	}
	return answer, nil
}

// counted reports whether a message has as many records as its header says. The
// parser is content with fewer, if there are no bytes left.
func counted(raw []byte, m *dns.Msg) bool {
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(binary.BigEndian.Uint16(raw[4+2*i:])) != n {
			return false
		}
	}
	return true
}

// answers reports whether a is an answer to q: same id and same question.
func answers(a, q *dns.Msg) bool {
	if !a.Response || a.Id != q.Id || a.Opcode != dns.OpcodeQuery || len(a.Question) != 1 {
		return false
	}
	got, want := a.Question[0], q.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}

// extract takes the addresses from an answer. Only records of the name itself
// and of the CNAMEs that lead on from it count (RFC 1034, section 3.6.2).
func extract(q, answer *dns.Msg) (records, error) {
	switch answer.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return records{}, ErrNoSuchName
	case dns.RcodeServerFailure:
		return records{}, errServFail
	default:
		return records{}, fmt.Errorf("the server says %s", dns.RcodeToString[answer.Rcode])
	}
	name, ttl := q.Question[0].Name, maxTTL
	for range maxChain {
		next, cnameTTL, ok := alias(answer.Answer, name)
		if !ok {
			break
		}
		name, ttl = next, min(ttl, cnameTTL)
	}
	found := records{ttl: ttl}
	for _, rr := range answer.Answer {
		addr, ok := address(rr, name, q.Question[0].Qtype)
		if ok && len(found.addrs) < maxRecords {
			found.addrs = append(found.addrs, addr)
			found.ttl = min(found.ttl, seconds(rr))
		}
	}
	return found, nil
}

// alias returns the name that a name stands for. A CNAME counts before the DNAME
// that it was made from (RFC 6672, section 3.1).
func alias(rrs []dns.RR, name string) (string, time.Duration, bool) {
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
			return c.Target, seconds(rr), true
		}
	}
	for _, rr := range rrs {
		d, ok := rr.(*dns.DNAME)
		if !ok || !dns.IsSubDomain(d.Hdr.Name, name) || strings.EqualFold(d.Hdr.Name, name) {
			continue
		}
		target := name[:len(name)-len(d.Hdr.Name)] + d.Target
		if _, ok := dns.IsDomainName(target); ok {
			return target, seconds(rr), true
		}
	}
	return "", 0, false
}

func address(rr dns.RR, name string, qtype uint16) (netip.Addr, bool) {
	if !strings.EqualFold(rr.Header().Name, name) || rr.Header().Rrtype != qtype || rr.Header().Class != dns.ClassINET {
		return netip.Addr{}, false
	}
	switch rr := rr.(type) {
	case *dns.A:
		addr, ok := netip.AddrFromSlice(rr.A.To4())
		return addr, ok
	case *dns.AAAA:
		addr, ok := netip.AddrFromSlice(rr.AAAA.To16())
		return addr.Unmap(), ok
	}
	return netip.Addr{}, false
}

func seconds(rr dns.RR) time.Duration { return time.Duration(rr.Header().Ttl) * time.Second }
