package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Socket is a TCP or UDP socket of this process's network namespace.
type Socket struct {
	Protocol uint8          // IANA number: 6 or 17
	State    uint8          // TCP_ESTABLISHED and so on (include/net/tcp_states.h); UDP has two of them
	Local    netip.AddrPort // IPv4 is never written as IPv4-mapped IPv6
	Remote   netip.AddrPort // the zero address and port 0 if it has no peer
	Cookie   uint64         // socket(7), SO_COOKIE: never reused while the machine is up

	id []byte // the struct inet_diag_sockid that the kernel gave
	v6 bool   // its family, which is AF_INET6 also for IPv4-mapped addresses
}

// Listening reports whether the socket waits for connections.
func (s Socket) Listening() bool { return s.Protocol == unix.IPPROTO_TCP && s.State == tcpListen }

// Connected reports whether the socket has a peer.
func (s Socket) Connected() bool { return s.Remote.Port() != 0 }

// The sizes and offsets of include/uapi/linux/inet_diag.h. Ports and addresses
// are in network order; everything else is in the machine's.
const (
	sizeofID      = 48           // struct inet_diag_sockid
	sizeofRequest = 8 + sizeofID // struct inet_diag_req_v2
	sizeofMessage = 4 + sizeofID + 20
	tcpListen     = 10 // TCP_LISTEN
)

var errShort = errors.New("the kernel's description of a socket is too short")

// parse reads a struct inet_diag_msg: family, state, timer, retrans, then the
// struct inet_diag_sockid.
func parse(protocol uint8, raw []byte) (Socket, error) {
	if len(raw) < sizeofMessage {
		return Socket{}, fmt.Errorf("%w: %d bytes", errShort, len(raw))
	}
	s := Socket{Protocol: protocol, State: raw[1], v6: raw[0] == unix.AF_INET6, id: append([]byte(nil), raw[4:4+sizeofID]...)}
	s.Local = netip.AddrPortFrom(s.addr(s.id[4:20]), binary.BigEndian.Uint16(s.id[0:]))
	s.Remote = netip.AddrPortFrom(s.addr(s.id[20:36]), binary.BigEndian.Uint16(s.id[2:]))
	s.Cookie = uint64(binary.NativeEndian.Uint32(s.id[40:])) | uint64(binary.NativeEndian.Uint32(s.id[44:]))<<32
	return s, nil
}

func (s Socket) addr(raw []byte) netip.Addr {
	if s.v6 {
		return netip.AddrFrom16([16]byte(raw)).Unmap()
	}
	return netip.AddrFrom4([4]byte(raw))
}

func (s Socket) family() uint8 {
	if s.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// request is a struct inet_diag_req_v2.
func request(family, protocol uint8, states uint32, id []byte) []byte {
	raw := make([]byte, sizeofRequest)
	raw[0], raw[1] = family, protocol
	binary.NativeEndian.PutUint32(raw[4:], states)
	copy(raw[8:], id)
	return raw
}
