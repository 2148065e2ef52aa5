// Act does one thing that a workload would do, and says in a word how it went. It
// is a program of its own because the race detector makes a test binary start
// slowly.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() { fmt.Print(act(os.Args[1], os.Args[2:])) }

// act does what a workload would do, and says in one word how it went.
func act(action string, args []string) string {
	switch action {
	case "dial": // network address
		return dial(args[0], args[1], 2*time.Second)
	case "try": // network address: the same, with less patience for packets that are dropped
		return dial(args[0], args[1], 300*time.Millisecond)
	case "sendto": // network address: an unconnected UDP socket
		return sendto(args[0], args[1])
	case "socket": // domain type protocol
		return makeSocket(args)
	case "bind": // network address
		return bind(args[0], args[1])
	case "self": // address: listens there and dials itself
		return dialSelf(args[0])
	case "talk": // address: one connection, a line for each line on stdin
		return talk(args[0])
	case "query": // connected|unconnected address: expects an answer
		return query(args[0], args[1])
	case "askall": // addresses: a question to each from one socket, until one answers
		return askAll(args)
	case "routed": // address: TCP with a segment routing header (RFC 8754)
		return routed(args[0])
	case "bounddev": // device address: UDP through that device
		return boundDevice(args[0], args[1])
	case "share": // address count: joins a port's group, and after a line on stdin dials it that often
		return share(args[0], args[1])
	case "serve": // address: listens until its stdin ends
		return serve(args[0])
	case "spray": // prefix count: a datagram to port 9 of each of so many addresses
		return spray(args[0], args[1])
	case "again": // connected|unconnected address count: datagrams of one socket
		return again(args[0], args[1], args[2])
	case "flood": // address: refused connects, as fast as it goes, until its stdin ends
		return flood(args[0])
	case "sockets": // count: how often making one is refused
		return sockets(args[0])
	case "distinct": // address count: one connect to each of so many ports
		return distinct(args[0], args[1])
	case "hammer": // listed and unlisted, TCP and UDP: tries all until its stdin ends
		return hammer(args[0], args[1], args[2], args[3])
	case "spawn": // count: starts that many programs, one after the other
		return spawn(args[0])
	case "hoard": // network address count: as many sockets, all open
		return hoard(args[0], args[1], args[2])
	case "nothing":
		return ""
	case "probe": // port file: connects UDP to each address of a file, 4 bytes each
		return probe(args[0], args[1])
	case "stream": // network: one UDP socket, a datagram for each address on stdin
		return stream(args[0])
	case "route": // network address: a UDP connect that sends nothing
		return route(args[0], args[1])
	case "reconnect": // first second: one UDP socket, connected twice
		return reconnect(args[0], args[1])
	case "evade": // way listed unlisted
		return evade(args[0], args[1], args[2])
	case "asker": // server: one connected socket, a question for each line on stdin
		return asker(args[0])
	case "impersonate": // victim server: a question from somebody else's socket
		return impersonate(args[0], args[1])
	case "steer": // address count: as share, with a program that chooses the other
		return steer(args[0], args[1])
	case "late": // target: one socket, a datagram for each line on stdin
		return late(args[0])
	case "echo": // network address: a TCP server
		return echo(args[0], args[1])
	case "datagrams": // how network address: a UDP server
		return datagrams(args[0], args[1], args[2])
	case "dialfrom": // network local address
		return dialFrom(args[0], args[1], args[2])
	case "keep": // address: a TCP socket that is kept when its connect has failed
		return keep(args[0])
	case "pair": // network address: two UDP sockets, connected to each other
		return pair(args[0], args[1])
	}
	return "unknown action " + action
}

// dialMapped connects an IPv6 socket to an IPv4 address; Go's dialer would make
// it an IPv4 socket.
func dialMapped(network, address string) string {
	kind := unix.SOCK_STREAM
	if network == "udp6" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(unix.AF_INET6, kind, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	ap := netip.MustParseAddrPort(address)
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}); err != nil {
		return word(err)
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return "write " + word(err)
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return word(err)
	}
	sa := peer.(*unix.SockaddrInet6)
	return fmt.Sprintf("ok %s", netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
}

func sendtoMapped(address string) string {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	ap := netip.MustParseAddrPort(address)
	if err := unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}); err != nil {
		return word(err)
	}
	return "ok"
}

func dial(network, address string, patience time.Duration) string {
	if strings.HasPrefix(address, "[::ffff:") {
		return dialMapped(network, address)
	}
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return "write " + word(err)
	}
	return "ok " + c.RemoteAddr().String()
}

func sendto(network, address string) string {
	if strings.HasPrefix(address, "[::ffff:") {
		return sendtoMapped(address)
	}
	to, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return err.Error()
	}
	c, err := net.ListenPacket(network, ":0")
	if err != nil {
		return word(err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("hello"), to); err != nil {
		return word(err)
	}
	return "ok"
}

func makeSocket(args []string) string {
	var n [3]int
	for i := range n {
		fmt.Sscan(args[i], &n[i])
	}
	fd, err := unix.Socket(n[0], n[1], n[2])
	if err != nil {
		return word(err)
	}
	unix.Close(fd)
	return "ok"
}

func bind(network, address string) string {
	l, err := net.Listen(network, address)
	if err != nil {
		return word(err)
	}
	l.Close()
	return "ok"
}

func dialSelf(address string) string {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "listen " + word(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Write([]byte("welcome"))
			c.Close()
		}
	}()
	c, err := net.DialTimeout("tcp", l.Addr().String(), 2*time.Second)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 16)
	n, err := c.Read(buf)
	if err != nil {
		return "read " + word(err)
	}
	return "ok " + string(buf[:n])
}

// routed connects with a routing header whose only segment is the address itself.
func routed(address string) string {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	ap := netip.MustParseAddrPort(address)
	to := ap.Addr().As16()
	header := append([]byte{0, 2, 4, 0, 0, 0, 0, 0}, to[:]...)
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IPV6, unix.IPV6_RTHDR, string(header)); err != nil {
		return "option " + word(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 300000}); err != nil {
		return word(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(ap.Port()), Addr: to}); err != nil {
		return word(err)
	}
	return "ok"
}

func boundDevice(device, address string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	own, err := net.ListenPacket("udp4", address) // so that the address is the run's own
	if err != nil {
		return word(err)
	}
	defer own.Close()
	if err := unix.BindToDevice(fd, device); err != nil {
		return "device " + word(err)
	}
	ap := own.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}); err != nil {
		return word(err)
	}
	return "ok"
}

// tcpOf is the network of an address: Go would listen at [::] for 0.0.0.0.
func tcpOf(address string) string {
	if strings.HasPrefix(address, "[") {
		return "tcp6"
	}
	return "tcp4"
}

// share listens where somebody else does (SO_REUSEPORT, socket(7)) and connects
// there again and again: the kernel spreads the connections over both.
func share(address, count string) string {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(context.Background(), tcpOf(address), address)
	if err != nil {
		return "listen " + word(err)
	}
	defer l.Close()
	fmt.Println("listening")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // or its end
	n, _ := strconv.Atoi(count)
	made := 0
	for range n {
		c, err := net.DialTimeout(tcpOf(address), address, 50*time.Millisecond)
		if err == nil {
			made++
			c.Close()
		}
	}
	return fmt.Sprintf("ok %d", made)
}

func serve(address string) string {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return word(err)
	}
	defer l.Close()
	fmt.Println("listening")
	io.Copy(io.Discard, os.Stdin)
	return ""
}

func talk(address string) string {
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	var line string
	for {
		if _, err := fmt.Scanln(&line); err != nil {
			return "ok"
		}
		fmt.Fprintln(c, line)
	}
}

func query(how, address string) string {
	var c net.Conn
	var err error
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return err.Error()
	}
	if how == "connected" {
		if c, err = net.DialUDP("udp", nil, to); err != nil {
			return word(err)
		}
		c.SetDeadline(time.Now().Add(2 * time.Second))
		c.Write([]byte("question"))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		if err != nil {
			return "read " + word(err)
		}
		return string(buf[:n]) + " from " + c.RemoteAddr().String()
	}
	p, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", ":0")
	if err != nil {
		return word(err)
	}
	p.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := p.WriteTo([]byte("question"), to); err != nil {
		return word(err)
	}
	buf := make([]byte, 64)
	n, from, err := p.ReadFrom(buf)
	if err != nil {
		return "read " + word(err)
	}
	return string(buf[:n]) + " from " + from.String()
}

// reconnect connects a UDP socket to a first address, dissolves that, and sends
// on the second.
func reconnect(first, second string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	if err := unix.Connect(fd, sockaddr(first)); err != nil {
		return "first " + word(err)
	}
	raw := [16]byte{}
	syscall.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptrOf(&raw), 16)
	if err := unix.Connect(fd, sockaddr(second)); err != nil {
		return word(err)
	}
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		return "write " + word(err)
	}
	return "ok"
}

// probe says of each address whether its connect was refused by permission (0) or
// not (1). What the kernel says after that, for example of a broadcast address,
// does not matter.
func probe(port, file string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return word(err)
	}
	defer unix.Close(fd)
	n, _ := strconv.Atoi(port)
	var out strings.Builder
	for ; len(raw) >= 4; raw = raw[4:] {
		answer := byte('1')
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte(raw)}); err == unix.EPERM {
			answer = '0'
		}
		out.WriteByte(answer)
	}
	return out.String()
}
