package rig

import (
	"context"
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// Zone says which addresses a name has, as somebody asks for it: in lower case,
// without the last dot. Names that are not known do not exist.
type Zone func(from net.Addr, name string) (addrs []netip.Addr, known bool)

// ServeNames answers questions over UDP until ctx ends. It closes conn.
func ServeNames(ctx context.Context, conn net.PacketConn, zone Zone) {
	context.AfterFunc(ctx, func() { conn.Close() })
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		// A lost answer is asked for again.
		_ = w.WriteMsg(zone.answer(w.RemoteAddr(), q))
	})}
	go func() { _ = server.ActivateAndServe() }() // ends with ctx
}

func (z Zone) answer(from net.Addr, query *dns.Msg) *dns.Msg {
	reply := new(dns.Msg).SetReply(query)
	if len(query.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
		return reply
	}
	q := query.Question[0]
	name := dns.CanonicalName(q.Name)
	addrs, known := z(from, name[:len(name)-1])
	if !known {
		reply.Rcode = dns.RcodeNameError
		return reply
	}
	for _, a := range addrs {
		header := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: 60}
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			header.Rrtype = dns.TypeA
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			header.Rrtype = dns.TypeAAAA
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	return reply
}
