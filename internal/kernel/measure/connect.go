package measure

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockaddrs are IPv4 socket addresses one after the other, as connect(2) takes
// them (struct sockaddr_in, ip(7)).
type Sockaddrs []byte

const sockaddrSize = unix.SizeofSockaddrInet4

// NewSockaddrs encodes IPv4 addresses, all with the same port.
func NewSockaddrs(addrs []netip.Addr, port uint16) Sockaddrs {
	out := make(Sockaddrs, 0, len(addrs)*sockaddrSize)
	for _, a := range addrs {
		ip := a.As4()
		out = binary.NativeEndian.AppendUint16(out, unix.AF_INET)
		out = binary.BigEndian.AppendUint16(out, port)
		out = append(out, ip[:]...)
		out = append(out, make([]byte, 8)...)
	}
	return out
}

// Len returns how many there are.
func (s Sockaddrs) Len() int { return len(s) / sockaddrSize }

// Slice returns n addresses from the i-th on.
func (s Sockaddrs) Slice(i, n int) Sockaddrs { return s[i*sockaddrSize : (i+n)*sockaddrSize] }

// Connect connects the socket to each address in turn, without telling Go's
// scheduler: the caller has locked its thread.
func Connect(fd int, to Sockaddrs) error {
	for i := 0; i+sockaddrSize <= len(to); i += sockaddrSize {
		_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to[i])), sockaddrSize)
		if errno != 0 {
			return errno
		}
	}
	return nil
}
