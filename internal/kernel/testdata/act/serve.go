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
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// echo listens, says where, and tells of each connection that a program gets; what
// comes is sent back. A line on stdin is sent on all of them.
func echo(network, address string) string {
	l, err := listenFor(network, address)
	if err != nil {
		return "listen " + word(err)
	}
	fmt.Println("listening", l.Addr().(*net.TCPAddr).Port)
	accepted := make(chan net.Conn, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Println("accepted", c.RemoteAddr())
			accepted <- c
			go io.Copy(c, c)
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	var open []net.Conn
	for lines.Scan() {
		for len(accepted) > 0 {
			open = append(open, <-accepted)
		}
		for _, c := range open {
			fmt.Fprintln(c, lines.Text())
		}
	}
	return ""
}

// listenFor listens; "unbound" is a socket that is never bound, "fastopen" takes
// data with the SYN (RFC 7413), "shared" joins the port's group.
func listenFor(network, address string) (net.Listener, error) {
	switch network {
	case "unbound":
		return listenUnbound()
	case "fastopen":
		return listenWith("tcp4", address, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16)
	case "shared":
		return listenWith("tcp4", address, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	return net.Listen(network, address)
}

func listenWith(network, address string, level, option, value int) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
		return errors.Join(err, failed)
	}}
	return lc.Listen(context.Background(), network, address)
}

func listenUnbound() (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, 16); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	return net.FileListener(f)
}

// datagrams serves UDP. It tells of each datagram that it gets. Lines on stdin say
// what to do: "send ADDRESS", or "connect ADDRESS" and from then on "write".
//
// how is "answer", which sends each datagram back, "from", which does not, or
// "blind", which reads without asking who has sent.
func datagrams(how, network, address string) string {
	p, err := net.ListenPacket(network, address)
	if err != nil {
		return "listen " + word(err)
	}
	c := p.(*net.UDPConn)
	fmt.Println("listening", c.LocalAddr().(*net.UDPAddr).Port)
	go read(c, how)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		verb, to, _ := strings.Cut(lines.Text(), " ")
		fmt.Println(command(c, verb, to))
	}
	return ""
}

func read(c *net.UDPConn, how string) {
	buf := make([]byte, 2048)
	for {
		if how == "blind" {
			n, err := blindRead(c, buf)
			if err != nil {
				return
			}
			fmt.Println("got", string(buf[:n]))
			continue
		}
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		fmt.Println("got", string(buf[:n]))
		if how == "answer" {
			if _, err := c.WriteToUDPAddrPort(buf[:n], from); err != nil {
				fmt.Println("answer", word(err))
			}
		}
	}
}

// blindRead is recv(2), which no hook of the kernel for reading sees.
func blindRead(c *net.UDPConn, buf []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), buf)
		return err != unix.EAGAIN
	})
	return n, errors.Join(err, failed)
}

func command(c *net.UDPConn, verb, to string) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return word(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		switch verb {
		case "send":
			failed = unix.Sendto(int(fd), []byte("hello"), 0, sockaddrFor(c, to))
		case "connect":
			failed = unix.Connect(int(fd), sockaddrFor(c, to))
		case "write":
			_, failed = unix.Write(int(fd), []byte("hello"))
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return verb + " " + word(err)
	}
	return verb + " ok"
}

// sockaddrFor is the address in the family of the socket.
func sockaddrFor(c *net.UDPConn, s string) unix.Sockaddr {
	a := netip.MustParseAddrPort(s)
	if c.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// dialFrom connects from an address and port of its own.
func dialFrom(network, local, address string) string {
	d := net.Dialer{Timeout: 2 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	if network[:3] == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(local))
	}
	c, err := d.Dial(network, address)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return "write " + word(err)
	}
	return "ok " + c.RemoteAddr().String()
}
