package egress

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"
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
		"good":                    {good, dns.RcodeSuccess},
		"empty":                   {nil, drop},
		"shorter than a header":   {good[:11], drop},
		"an answer":               {edit(func(m *dns.Msg) { m.Response = true }), drop},
		"header only":             {good[:12], dns.RcodeFormatError},
		"cut in the name":         {good[:20], dns.RcodeFormatError},
		"cut in OPT":              {good[:len(good)-3], dns.RcodeFormatError},
		"no question":             {patch(4, 0), dns.RcodeFormatError},
		"two questions":           {edit(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"counts two, has one":     {patch(4, 2), dns.RcodeFormatError},
		"answer in the question":  {edit(func(m *dns.Msg) { m.Answer = []dns.RR{rr} }), dns.RcodeFormatError},
		"authority":               {edit(func(m *dns.Msg) { m.Ns = []dns.RR{rr} }), dns.RcodeFormatError},
		"many additional":         {edit(func(m *dns.Msg) { m.Extra = append(m.Extra, rr, rr) }), dns.RcodeFormatError},
		"two OPT":                 {edit(func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), dns.RcodeFormatError},
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
