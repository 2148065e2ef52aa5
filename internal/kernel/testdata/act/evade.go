package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// evade reaches for unlisted in a way that names it only sideways, if it names
// it at all; listed is where the socket may go. Both are IPv4.
func evade(how, listed, unlisted string) string {
	kind := unix.SOCK_DGRAM
	if how == "fastopen" || how == "dissolve tcp" || how == "source route tcp" {
		kind = unix.SOCK_STREAM
	}
	fd, err := unix.Socket(unix.AF_INET, kind, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 300000}); err != nil {
		return word(err)
	}
	ways := map[string]func(int, string, string) error{
		"fastopen": fastOpen, "unspecified family": unspecifiedFamily, "connected sendto": connectedSendto,
		"many": sendMany, "more": sendMore, "cork": sendCorked, "segments": sendSegments,
		"dissolve tcp": dissolveTCP, "source route udp": sourceRoute, "source route tcp": sourceRoute,
	}
	way, ok := ways[how]
	if !ok {
		return "unknown way " + how
	}
	if err := way(fd, listed, unlisted); err != nil {
		return word(err)
	}
	return "ok"
}

// fastOpen connects by the first send (RFC 7413).
func fastOpen(fd int, _, unlisted string) error {
	return unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, sockaddr(unlisted))
}

// unspecifiedFamily sends to an address whose family is AF_UNSPEC, which UDP
// takes for AF_INET (udp(7)).
func unspecifiedFamily(fd int, _, unlisted string) error {
	raw := rawAddress(unlisted)
	raw.Family = unix.AF_UNSPEC
	payload := []byte("hello")
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&payload[0])), uintptr(len(payload)),
		0, uintptr(unsafe.Pointer(&raw)), unsafe.Sizeof(raw))
	if errno != 0 {
		return errno
	}
	return nil
}

func rawAddress(s string) unix.RawSockaddrInet4 {
	ap := netip.MustParseAddrPort(s)
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: ap.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&raw.Port))[:], ap.Port())
	return raw
}

// connectedSendto names another address on a connected socket.
func connectedSendto(fd int, listed, unlisted string) error {
	if err := unix.Connect(fd, sockaddr(listed)); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("hello"), 0, sockaddr(unlisted))
}

// mmsghdr is struct mmsghdr (sendmmsg(2)).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// sendMany hides an unlisted address behind a listed one in one call.
func sendMany(fd int, listed, unlisted string) error {
	addresses := []unix.RawSockaddrInet4{rawAddress(listed), rawAddress(unlisted)}
	payload := []byte("hello")
	iov := unix.Iovec{Base: &payload[0]}
	iov.SetLen(len(payload))
	messages := make([]mmsghdr, len(addresses))
	for i := range messages {
		messages[i].hdr = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&addresses[i])), Namelen: unix.SizeofSockaddrInet4, Iov: &iov, Iovlen: 1}
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if int(n) < len(messages) {
		return unix.EPERM // sendmmsg tells of an error only if it sent nothing
	}
	return nil
}

// sendMore begins a datagram to one address and ends it with another's.
func sendMore(fd int, listed, unlisted string) error {
	if err := unix.Sendto(fd, []byte("hel"), unix.MSG_MORE, sockaddr(listed)); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("lo"), 0, sockaddr(unlisted))
}

// sendCorked holds a datagram back while the socket is connected elsewhere.
func sendCorked(fd int, listed, unlisted string) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK, 1); err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte("hello"), 0, sockaddr(listed)); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(unlisted)); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK, 0)
}

// sendSegments has the kernel make datagrams of one buffer (UDP_SEGMENT, udp(7)).
func sendSegments(fd int, _, unlisted string) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 5); err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("hellohellohello"), 0, sockaddr(unlisted))
}

// dissolveTCP connects, dissolves that and connects elsewhere with one socket.
func dissolveTCP(fd int, listed, unlisted string) error {
	if err := unix.Connect(fd, sockaddr(listed)); err != nil {
		return err
	}
	raw := [16]byte{}
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptrOf(&raw), 16); errno != 0 {
		return errno
	}
	return unix.Connect(fd, sockaddr(unlisted))
}

// sourceRoute sends to the listed address by way of the unlisted one (loose
// source route, RFC 791 section 3.1).
func sourceRoute(fd int, listed, unlisted string) error {
	hop := netip.MustParseAddrPort(unlisted).Addr().As4()
	last := netip.MustParseAddrPort(listed).Addr().As4()
	option := append([]byte{131, 11, 4}, hop[:]...)
	option = append(append(option, last[:]...), 0)
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, string(option)); err != nil {
		return fmt.Errorf("option: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(listed)); err != nil {
		return err
	}
	_, err := unix.Write(fd, []byte("hello"))
	return err
}

// asker says where its socket is and what it was answered.
func asker(server string) string {
	c, err := net.Dial("udp4", server)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	var line string
	buf := make([]byte, 64)
	for {
		if _, err := fmt.Scanln(&line); err != nil {
			return ""
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		n := 0
		if _, err = c.Write([]byte("question")); err == nil {
			n, err = c.Read(buf)
		}
		if err != nil {
			fmt.Println(c.LocalAddr(), word(err))
			continue
		}
		fmt.Println(c.LocalAddr(), string(buf[:n]))
	}
}

// late makes its socket at once and uses it when it is told to.
func late(target string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	fmt.Println("ready")
	var line string
	for {
		if _, err := fmt.Scanln(&line); err != nil {
			return ""
		}
		if err := unix.Sendto(fd, []byte("hello"), 0, sockaddr(target)); err != nil {
			fmt.Println(word(err))
			continue
		}
		fmt.Println("ok")
	}
}

// keep connects, says how that went, and keeps the socket until its stdin ends.
func keep(address string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(address)); err != nil {
		fmt.Println(word(err))
	} else {
		fmt.Println("ok")
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return ""
}

// impersonate asks a name server from the address and port of somebody else's
// socket: its own socket has the same port at another loopback address, and each
// datagram may choose its source (IP_PKTINFO, ip(7)).
func impersonate(victim, server string) string {
	ap := netip.MustParseAddrPort(victim)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: [4]byte{127, 0, 0, 2}}); err != nil {
		return "bind " + word(err)
	}
	info := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: ap.Addr().As4()})
	if _, err := unix.SendmsgN(fd, []byte("question"), info, sockaddr(server), 0); err != nil {
		return word(err)
	}
	return "ok"
}

// steer joins the group of a port and has the kernel give every connection to the
// group's first member, who is somebody else (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
func steer(address, count string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return word(err)
	}
	if err := unix.Bind(fd, sockaddr(address)); err != nil {
		return "bind " + word(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		return "listen " + word(err)
	}
	fmt.Println("listening")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // or its end
	second := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &second[0]}); err != nil {
		return "attach " + word(err)
	}
	n, _ := strconv.Atoi(count)
	made := 0
	for range n {
		c, err := net.DialTimeout("tcp4", address, 50*time.Millisecond)
		if err == nil {
			_, _ = c.Write([]byte("hello"))
			c.Close()
			made++
		}
	}
	return fmt.Sprintf("ok %d", made)
}

// pair makes two UDP sockets on loopback, connects each to the other, and sends
// both ways.
func pair(network, address string) string {
	var ends [2]*net.UDPConn
	var addresses [2]*net.UDPAddr
	for i := range ends {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return "listen " + word(err)
		}
		defer c.Close()
		ends[i], addresses[i] = c.(*net.UDPConn), c.LocalAddr().(*net.UDPAddr)
	}
	for i, c := range ends {
		if err := connectTo(c, addresses[1-i]); err != nil {
			return fmt.Sprintf("connect %d %s", i, word(err))
		}
	}
	buf := make([]byte, 8)
	for i, c := range ends {
		if _, err := c.Write([]byte("hello")); err != nil {
			return fmt.Sprintf("write %d %s", i, word(err))
		}
		other := ends[1-i]
		_ = other.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := other.Read(buf); err != nil {
			return fmt.Sprintf("read %d %s", i, word(err))
		}
	}
	return "ok"
}

func connectTo(c *net.UDPConn, to *net.UDPAddr) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var sa unix.Sockaddr
	if ip := to.IP.To4(); ip != nil {
		sa = &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(ip)}
	} else {
		sa = &unix.SockaddrInet6{Port: to.Port, Addr: [16]byte(to.IP)}
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Connect(int(fd), sa) }); err != nil {
		return err
	}
	return failed
}
