package world

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// NameServer answers for the demo's zone, and writes down every question.
type NameServer struct {
	Zone map[string][]netip.Addr // lower case, no trailing dot
	Any  netip.Addr              // the answer for every name below Exfil
	Log  *Log
}

// Serve answers on both sockets until the context ends.
func (s *NameServer) Serve(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	servers := []*dns.Server{
		{PacketConn: udp, Handler: dns.HandlerFunc(s.answer)},
		{Listener: tcp, Handler: dns.HandlerFunc(s.answer)},
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		stop := context.AfterFunc(ctx, func() { server.Shutdown() })
		group.Go(func() error {
			defer stop()
			return unlessDone(ctx, server.ActivateAndServe())
		})
	}
	return group.Wait()
}

func (s *NameServer) answer(w dns.ResponseWriter, query *dns.Msg) {
	reply := new(dns.Msg).SetReply(query)
	reply.Authoritative = true
	if len(query.Question) != 1 {
		reply.Rcode = dns.RcodeFormatError
	} else {
		q := query.Question[0]
		name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
		s.Log.Append(Entry{Event: "question", Peer: w.RemoteAddr().String(), Name: name, Type: dns.TypeToString[q.Qtype]})
		s.fill(reply, q, name)
	}
	// A client that is gone needs no answer; the question is in the log.
	_ = w.WriteMsg(reply)
}

// fill puts the records for a question into the reply.
func (s *NameServer) fill(reply *dns.Msg, q dns.Question, name string) {
	addrs, known := s.Zone[name]
	if !known && strings.HasSuffix(name, "."+Exfil) {
		addrs, known = []netip.Addr{s.Any}, true
	}
	if !known {
		reply.Rcode = dns.RcodeNameError
		return
	}
	for _, addr := range addrs {
		header := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: 30}
		switch {
		case q.Qtype == dns.TypeA && addr.Is4():
			header.Rrtype = dns.TypeA
			reply.Answer = append(reply.Answer, &dns.A{Hdr: header, A: addr.AsSlice()})
		case q.Qtype == dns.TypeAAAA && addr.Is6():
			header.Rrtype = dns.TypeAAAA
			reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
		}
	}
}

// unlessDone turns the error of a server that was told to stop into none.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
