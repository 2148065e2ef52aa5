package egress

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

const (
	answerTTL   = 60 // seconds; the address stays the same, the permission may not
	negativeTTL = 5  // seconds; so that a rule that is added helps soon
)

// start returns an empty answer to q: the question is repeated byte for byte,
// so that the case of its letters comes back (draft-vixie-dnsext-dns0x20).
func (q *question) start(rcode int) *dns.Msg {
	m := &dns.Msg{Question: q.msg.Question, Compress: true}
	m.Id, m.Response, m.Rcode = q.msg.Id, true, rcode
	m.RecursionDesired, m.RecursionAvailable = q.msg.RecursionDesired, true
	m.CheckingDisabled = q.msg.CheckingDisabled
	if q.edns {
		m.SetEdns0(maxUDP, q.msg.IsEdns0().Do())
	}
	return m
}

// pack writes an answer within the size that the client takes. What does not
// fit is cut, and the client is told to ask again over TCP (the TC bit).
func (q *question) pack(m *dns.Msg) []byte {
	if m.Len() > q.size {
		m.Truncate(q.size)
	}
	b, err := m.Pack()
	if err == nil {
		return b
	}
	// Everything in it was read from a message or made here, so this does not
	// happen; if it does, the client gets an answer that it can read.
	failure := &dns.Msg{}
	failure.Id, failure.Response, failure.Rcode = q.msg.Id, true, dns.RcodeServerFailure
	b, _ = failure.Pack()
	return b
}

// refuse answers without records.
func (q *question) refuse(rcode int) []byte { return q.pack(q.start(rcode)) }

// negative answers that a name, or records of the type, do not exist. The SOA
// record says how long that may be remembered (RFC 2308, section 5).
func (q *question) negative(rcode int, extended ...dns.EDNS0) []byte {
	m := q.start(rcode)
	m.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:  "varvel.invalid.", Mbox: "nobody.invalid.", Serial: 1,
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL,
	}}
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, extended...)
	}
	return q.pack(m)
}

// failed answers SERVFAIL with a sentence (RFC 8914).
func (q *question) failed(text string) []byte {
	m := q.start(dns.RcodeServerFailure)
	if opt := m.IsEdns0(); opt != nil {
		opt.Option = append(opt.Option, extendedError(dns.ExtendedErrorCodeOther, text))
	}
	return q.pack(m)
}

// extendedError explains an answer to people (RFC 8914, section 2).
func extendedError(code uint16, text string) dns.EDNS0 {
	return &dns.EDNS0_EDE{InfoCode: code, ExtraText: text}
}

// addresses answers with those of addrs that are of the type that was asked
// for. It reports whether there was one.
func (q *question) addresses(addrs []netip.Addr) ([]byte, bool) {
	return q.addressesFor(addrs, answerTTL)
}

// addressesFor is addresses with a time to live, in seconds.
func (q *question) addressesFor(addrs []netip.Addr, ttl uint32) ([]byte, bool) {
	m := q.start(dns.RcodeSuccess)
	for _, a := range addrs {
		if rr := addressRecord(q.name, q.qtype, a, ttl); rr != nil {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(m.Answer) == 0 {
		return q.negative(dns.RcodeSuccess), false
	}
	return q.pack(m), true
}

// addressRecord returns an A or AAAA record, or nil if addr is not of the type.
func addressRecord(name string, qtype uint16, addr netip.Addr, ttl uint32) dns.RR {
	hdr := dns.RR_Header{Name: name, Rrtype: qtype, Class: dns.ClassINET, Ttl: ttl}
	switch {
	case qtype == dns.TypeA && addr.Is4():
		return &dns.A{Hdr: hdr, A: net.IP(addr.AsSlice())}
	case qtype == dns.TypeAAAA && addr.Is6():
		return &dns.AAAA{Hdr: hdr, AAAA: net.IP(addr.AsSlice())}
	}
	return nil
}

// pointer answers a reverse question.
func (q *question) pointer(host string) []byte {
	m := q.start(dns.RcodeSuccess)
	m.Answer = []dns.RR{&dns.PTR{
		Hdr: dns.RR_Header{Name: q.name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: answerTTL},
		Ptr: dns.Fqdn(host),
	}}
	return q.pack(m)
}
