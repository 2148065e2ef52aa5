package egress

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
)

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestBrokenQuestions(t *testing.T) {
	edit := func(change func(*dns.Msg)) []byte {
		q := ask("api.example.com", dns.TypeA)
		change(q)
		return pack(t, q)
	}
	patch := func(at int, value uint16) []byte {
		wire := edit(func(*dns.Msg) {})
		binary.BigEndian.PutUint16(wire[at:], value)
		return wire
	}
	good := edit(func(*dns.Msg) {})
	rr, err := dns.NewRR("api.example.com. 1 IN A 192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	const drop = -1
	for name, tt := range map[string]struct {
		wire []byte
		want int // rcode
	}{
		"good":                   {good, dns.RcodeSuccess},
		"empty":                  {nil, drop},
		"shorter than a header":  {good[:11], drop},
		"an answer":              {edit(func(m *dns.Msg) { m.Response = true }), drop},
		"header only":            {good[:12], dns.RcodeFormatError},
		"cut in the name":        {good[:20], dns.RcodeFormatError},
		"cut in OPT":             {good[:len(good)-3], dns.RcodeFormatError},
		"no question":            {patch(4, 0), dns.RcodeFormatError},
		"two questions":          {edit(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"counts two, has one":    {patch(4, 2), dns.RcodeFormatError},
		"answer in the question": {edit(func(m *dns.Msg) { m.Answer = []dns.RR{rr} }), dns.RcodeFormatError},
		"authority":              {edit(func(m *dns.Msg) { m.Ns = []dns.RR{rr} }), dns.RcodeFormatError},
		"many additional":        {edit(func(m *dns.Msg) { m.Extra = append(m.Extra, rr, rr) }), dns.RcodeFormatError},
		"two OPT":                {edit(func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), dns.RcodeFormatError},
		"counts two additional":  {patch(10, 2), dns.RcodeFormatError},
		"OPT of a name":          {edit(func(m *dns.Msg) { m.Extra[0].Header().Name = "a." }), dns.RcodeFormatError},
		"an unknown option":      {edit(func(m *dns.Msg) { option(m, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("data")}) }), dns.RcodeSuccess},
		"many options": {edit(func(m *dns.Msg) {
			for code := range uint16(100) {
				option(m, &dns.EDNS0_LOCAL{Code: 60000 + code, Data: make([]byte, 5)})
			}
		}), dns.RcodeSuccess},
		"a cookie":                {edit(func(m *dns.Msg) { option(m, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"}) }), dns.RcodeSuccess},
		"padding":                 {edit(func(m *dns.Msg) { option(m, &dns.EDNS0_PADDING{Padding: make([]byte, 300)}) }), dns.RcodeSuccess},
		"an option cut short":     {brokenOption(good), dns.RcodeFormatError},
		"EDNS version 255":        {edit(func(m *dns.Msg) { m.IsEdns0().SetVersion(255) }), dns.RcodeBadVers},
		"EDNS version 1":          {edit(func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		"notify":                  {edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		"update":                  {edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"status":                  {edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }), dns.RcodeNotImplemented},
		"opcode 15":               {edit(func(m *dns.Msg) { m.Opcode = 15 }), dns.RcodeNotImplemented},
		"class CH":                {edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), dns.RcodeRefused},
		"class ANY":               {edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		"AXFR":                    {edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		"IXFR":                    {edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }), dns.RcodeRefused},
		"pointer into the header": {append(append([]byte{}, good[:12]...), 0xc0, 0), dns.RcodeFormatError},
		"no type and class":       {good[:12+17], dns.RcodeFormatError},
		"no class":                {good[:12+17+2], dns.RcodeFormatError},
		"pointer to itself":       {append(append(append([]byte{}, good[:12]...), 0xc0, 12), 0, 1, 0, 1), dns.RcodeFormatError},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
			raw := r.raw(t, tt.wire, maxUDP)
			if tt.want == drop {
				if raw != nil {
					t.Errorf("answer %x", raw)
				}
				return
			}
			m := new(dns.Msg)
			if err := m.Unpack(raw); err != nil {
				t.Fatal(err)
			}
			if m.Rcode != tt.want || !m.Response || m.Id != binary.BigEndian.Uint16(tt.wire) || m.Opcode != int(tt.wire[2]>>3) {
				t.Errorf("got %v, want rcode %d", m, tt.want)
			}
			if tt.want != dns.RcodeSuccess && len(m.Answer) > 0 {
				t.Errorf("records in a refusal: %v", m)
			}
		})
	}
}

func option(m *dns.Msg, o dns.EDNS0) {
	opt := m.IsEdns0()
	opt.Option = append(opt.Option, o)
}

// brokenOption gives the OPT record at a message's end an option that says that it
// is longer than the record.
func brokenOption(good []byte) []byte {
	wire := append([]byte{}, good...)
	binary.BigEndian.PutUint16(wire[len(wire)-2:], 6)
	return append(wire, 0xfd, 0xe9, 0, 200, 1, 2)
}

// What the client's options say is not sent back; what it asked as letters is.
func TestOptionsAndCase(t *testing.T) {
	r := newRig(t, Limits{}, agentWith(named("api.example.com", 443)))
	q := ask("aPI.eXAMPLE.cOM", dns.TypeA)
	option(q, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("data")})
	option(q, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(203, 0, 113, 0)})
	q.IsEdns0().SetDo()
	m := r.ask(t, q)
	opt := m.IsEdns0()
	if m.Question[0].Name != "aPI.eXAMPLE.cOM." || m.Answer[0].Header().Name != "aPI.eXAMPLE.cOM." ||
		opt == nil || len(opt.Option) != 0 || !opt.Do() || opt.Version() != 0 {
		t.Errorf("%v", m)
	}
	q = ask("api.example.com", dns.TypeA)
	q.IsEdns0().SetVersion(3)
	if m := r.ask(t, q); m.IsEdns0() == nil || m.IsEdns0().Version() != 0 || len(m.Answer) != 0 {
		t.Errorf("BADVERS does not tell the version: %v", m)
	}
}

// A direct name can have more addresses than fit into a datagram: then they come
// over TCP.
func TestTruncatedThenOverTCP(t *testing.T) {
	host := strings.Repeat("long-label-of-a-name.", 4) + "example"
	r := newRig(t, Limits{}, agentWith(directly(host, config.ProtocolTCP, 443)))
	r.server.upstream = upstreamFunc(func(context.Context, string) ([]netip.Addr, error) {
		var list []netip.Addr
		for i := range maxLeaseAddrs {
			list = append(list, netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i + 1)}))
		}
		return list, nil
	})
	q := ask(host, dns.TypeAAAA)
	q.Extra = nil
	wire := pack(t, q)
	for _, tt := range []struct {
		limit     int
		truncated bool
	}{{maxUDP, true}, {maxTCP, false}} {
		m := new(dns.Msg)
		raw := r.raw(t, wire, tt.limit)
		if err := m.Unpack(raw); err != nil || m.Truncated != tt.truncated || tt.truncated && len(raw) > minUDP || !tt.truncated && len(m.Answer) != maxLeaseAddrs {
			t.Errorf("limit %d: %d bytes, %v, %v", tt.limit, len(raw), err, m)
		}
	}
}

func TestAnswersFit(t *testing.T) {
	long := ""
	for range 3 {
		long += "a23456789012345678901234567890123456789012345678901234567890123."
	}
	long += "a234567890123456789012345678901234567890.example"
	r := newRig(t, Limits{}, agentWith(named("**.example", 443)))
	for _, tt := range []struct {
		name  string
		size  uint16
		limit int
		max   int
	}{
		{long, 0, maxUDP, 512},
		{long + ".net", 0, maxUDP, 512},
		{long, 100, maxUDP, 512}, // less than 512 counts as 512 (RFC 6891, section 6.2.3)
		{long + ".net", 65535, maxUDP, maxUDP},
		{long + ".net", 512, maxUDP, 512},
		{long + ".net", 512, maxTCP, maxTCP},
	} {
		q := ask(tt.name, dns.TypeAAAA)
		q.IsEdns0().SetUDPSize(tt.size)
		if tt.size == 0 {
			q.Extra = nil
		}
		raw := r.raw(t, pack(t, q), tt.limit)
		m := new(dns.Msg)
		if err := m.Unpack(raw); err != nil || len(raw) > tt.max || m.Truncated && tt.limit == maxTCP {
			t.Errorf("%d bytes of at most %d, %v: %v", len(raw), tt.max, err, m)
		}
	}
}

func TestTooLongIsTruncated(t *testing.T) {
	q := &question{msg: ask("example.org", dns.TypeA), name: "example.org.", qtype: dns.TypeA, size: minUDP}
	m := q.start(dns.RcodeSuccess)
	for range 60 {
		m.Answer = append(m.Answer, addressRecord(q.name, dns.TypeA, address4(1), answerTTL))
	}
	raw := q.pack(m)
	if err := m.Unpack(raw); err != nil || !m.Truncated || len(raw) > minUDP {
		t.Errorf("%d bytes, %v: %v", len(raw), err, m)
	}
}
