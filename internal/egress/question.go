package egress

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

const (
	headerSize = 12    // RFC 1035, section 4.1.1
	minUDP     = 512   // what a client without EDNS takes (RFC 1035, section 4.2.1)
	maxUDP     = 1232  // what we send and take over UDP; never fragmented
	maxTCP     = 65535 // what the length of a TCP message can say
	// maxAdditional is how many additional records a question may have: OPT,
	// and a signature of the message.
	maxAdditional = 2
)

// question is a well-formed question of a run, and what its answer needs.
type question struct {
	state *runState
	msg   *dns.Msg
	name  string // as it was sent, for events
	host  string // canonical; "" if it is no host name
	qtype uint16
	size  int // bytes that the answer may have
	edns  bool
}

// parse reads a message. It returns a question; or no question and the answer
// to what is not one; or neither, if nothing should be sent.
func (s *Server) parse(state *runState, msg []byte, limit int) (*question, []byte) {
	state.count.queries.Add(1)
	if len(msg) < headerSize || msg[2]&0x80 != 0 {
		// Too short to answer, or an answer itself: answering one could go on
		// for ever.
		state.count.malformed.Add(1)
		return nil, nil
	}
	if opcode := int(msg[2]>>3) & 0xf; opcode != dns.OpcodeQuery {
		return nil, headerOnly(msg, dns.RcodeNotImplemented)
	}
	m := new(dns.Msg)
	if !plausible(msg) || m.Unpack(msg) != nil || len(m.Question) != 1 || !counted(msg, m) || !soundOPT(m) {
		state.count.malformed.Add(1)
		return nil, headerOnly(msg, dns.RcodeFormatError)
	}
	q := newQuestion(state, m, limit)
	switch opt := m.IsEdns0(); {
	case opt != nil && opt.Version() != 0:
		return nil, q.refuse(dns.RcodeBadVers) // RFC 6891, section 6.1.3
	case m.Question[0].Qclass != dns.ClassINET, isTransfer(q.qtype):
		return nil, q.refuse(dns.RcodeRefused)
	}
	return q, nil
}

func newQuestion(state *runState, m *dns.Msg, limit int) *question {
	q := &question{state: state, msg: m, name: m.Question[0].Name, qtype: m.Question[0].Qtype, size: limit}
	q.host, _ = CanonicalHost(q.name)
	opt := m.IsEdns0()
	q.edns = opt != nil
	if limit < maxTCP {
		q.size = minUDP
	}
	if limit < maxTCP && q.edns {
		q.size = min(limit, max(minUDP, int(opt.UDPSize())))
	}
	return q
}

// plausible checks the counts in a header: one question (RFC 9619), nothing
// that belongs into answers, and few additional records. The parser is more
// generous than that.
func plausible(msg []byte) bool {
	count := func(i int) uint16 { return binary.BigEndian.Uint16(msg[i:]) }
	return count(4) == 1 && count(6) == 0 && count(8) == 0 && count(10) <= maxAdditional && wholeQuestion(msg[headerSize:])
}

// wholeQuestion reports whether msg begins with a name, a type and a class. The
// name is not compressed: there is nothing before it that it could repeat.
func wholeQuestion(msg []byte) bool {
	for len(msg) > 0 && msg[0] > 0 && msg[0] <= maxLabel && int(msg[0]) < len(msg) {
		msg = msg[1+int(msg[0]):]
	}
	return len(msg) >= 5 && msg[0] == 0
}

// soundOPT reports whether a message has one OPT record at most, and that one at the
// root (RFC 6891, section 6.1).
func soundOPT(m *dns.Msg) bool {
	n := 0
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			continue
		}
		if n++; n > 1 || rr.Header().Name != "." {
			return false
		}
	}
	return true
}

// isTransfer knows the question types that ask for a zone.
func isTransfer(qtype uint16) bool { return qtype == dns.TypeAXFR || qtype == dns.TypeIXFR }

// headerOnly answers what could not be read further than its header: the same
// id, opcode and RD bit, and no records.
func headerOnly(msg []byte, rcode int) []byte {
	answer := make([]byte, headerSize)
	copy(answer, msg[:2])
	answer[2] = 0x80 | msg[2]&0x79 // QR, opcode, RD
	answer[3] = 0x80 | byte(rcode) // RA
	return answer
}
