package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// act is what the client does: one thing, and prints how it went.
func act(args []string) int {
	acts := map[string]func([]string) error{
		"send": sendAct, "resolve": resolveAct, "flood": floodAct, "keep": keepAct, "hold": holdAct, "ask": askAct, "push": pushAct,
		"fill": fillAct, "later": laterAct, "serve": serveAct,
	}
	if len(args) == 0 || acts[args[0]] == nil {
		fmt.Println("no such act")
		return 98
	}
	if err := acts[args[0]](args[1:]); err != nil {
		fmt.Println(outcome(err))
		return 1
	}
	fmt.Println("ok")
	return 0
}

// outcome is an errno's name, or the error.
func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// sendAct sends a payload to each target and wants it back: send PAYLOAD NETWORK/ADDRESS...
func sendAct(args []string) error {
	var errs []error
	for _, target := range args[1:] {
		err := send(target, args[0], 3*time.Second)
		fmt.Println(target, outcome(err))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// send makes one attempt. Networks are those of net.Dial, "sendto4" and
// "sendto6" for UDP without a connect, and "dns4", "dns6" for a raw question
// whose name is the payload.
func send(target, payload string, limit time.Duration) error {
	network, address, _ := strings.Cut(target, "/")
	switch network {
	case "sendto4", "sendto6":
		return sendTo("udp"+network[6:], address, payload, limit)
	case "dns4", "dns6":
		return question("udp"+network[3:], address, payload, limit)
	}
	if network == "mapped" {
		return sendMapped(netip.MustParseAddrPort(address), payload)
	}
	conn, err := net.DialTimeout(network, address, limit)
	if err != nil {
		return err
	}
	defer conn.Close()
	return exchange(conn, payload, limit)
}

// sendMapped reaches an IPv4 address through an IPv6 socket, which Go's net
// does not do when it is told the family.
func sendMapped(to netip.AddrPort, payload string) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(payload))
	return err
}

// exchange sends and expects the same back.
func exchange(conn net.Conn, payload string, limit time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(payload)); err != nil {
		return err
	}
	buf := make([]byte, len(payload)+1)
	n, err := conn.Read(buf)
	if err == nil && string(buf[:n]) != payload {
		err = fmt.Errorf("got %q back", buf[:n])
	}
	return err
}

func sendTo(network, address, payload string, limit time.Duration) error {
	to, err := net.ResolveUDPAddr(network, address)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.WriteTo([]byte(payload), to); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	_, _, err = conn.ReadFrom(make([]byte, 1500))
	return err
}

// question asks a server for a name that has the payload in it.
func question(network, server, name string, limit time.Duration) error {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c := &dns.Client{Net: network, Timeout: limit}
	reply, _, err := c.Exchange(m, server)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = errors.New(dns.RcodeToString[reply.Rcode])
	}
	return err
}

// pushAct writes so many bytes, closes, and is gone: push BYTES NETWORK/ADDRESS.
// Whoever calls it expects that the kernel delivers what was written.
func pushAct(args []string) error {
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	network, address, _ := strings.Cut(args[1], "/")
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).SetWriteBuffer(2 * size); err != nil {
		return err
	}
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	return conn.Close()
}

// laterAct resolves a name, says so, waits for a line, connects to the address
// that it has got, and then asks for the name again: later PAYLOAD HOST:PORT. Each
// step may take very long.
func laterAct(args []string) error {
	host, port, err := net.SplitHostPort(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return err
	}
	fmt.Println("resolved")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for _, to := range []string{net.JoinHostPort(addrs[0], port), args[1]} {
		fmt.Println("trying")
		if err := send("tcp/"+to, args[0], time.Minute); err != nil {
			return err
		}
		fmt.Println("worked")
	}
	return nil
}

// askAct prints the answer of the run's own name server: ask TYPE NAME...
func askAct(args []string) error {
	for _, name := range args[1:] {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[args[0]])
		reply, _, err := new(dns.Client).Exchange(m, "192.0.2.53:53")
		if err != nil {
			return err
		}
		fmt.Println(name, dns.RcodeToString[reply.Rcode], len(reply.Answer))
	}
	return nil
}

// resolveAct prints what Go's resolver finds: resolve NAME...
func resolveAct(names []string) error {
	var errs []error
	for _, name := range names {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		addrs, err := net.DefaultResolver.LookupHost(ctx, name)
		cancel()
		fmt.Println(name, strings.Join(addrs, " "))
		var missing *net.DNSError
		if err != nil && (!errors.As(err, &missing) || !missing.IsNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keepAct keeps up one connection to each target: keep FILE NETWORK/ADDRESS...
func keepAct(args []string) error {
	failed := make(chan error)
	for i := 0; i+1 < len(args); i += 2 {
		go func() { failed <- keep(args[i], args[i+1]) }()
	}
	return <-failed
}

// keep sends all the time and writes down each outcome. It connects anew when
// the connection breaks.
func keep(file, target string) error {
	network, address, _ := strings.Cut(target, "/")
	once := keepConn(network, address)
	if network == "get" {
		once = keepGetting("http://" + address)
	}
	for i := 0; ; i++ {
		if err := note(file, "%d %s", i, outcome(once(i))); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// keepConn returns what sends on one connection for as long as it holds.
func keepConn(network, address string) func(i int) error {
	var conn net.Conn
	return func(i int) (err error) {
		if conn == nil {
			if conn, err = net.DialTimeout(network, address, time.Second); err != nil {
				return err
			}
		}
		if err = exchange(conn, fmt.Sprintf("keep-%d;", i), time.Second); err != nil {
			conn.Close()
			conn = nil
		}
		return err
	}
}

// keepGetting returns what asks an HTTP server, on one connection if it may.
func keepGetting(url string) func(i int) error {
	client := &http.Client{Timeout: 5 * time.Second}
	return func(int) error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		return err
	}
}

// note replaces a file, so that a reader sees the old or the new text.
func note(file, format string, args ...any) error {
	if err := os.WriteFile(file+".new~", fmt.Appendf(nil, format, args...), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new~", file)
}

// floodAct makes attempts at all targets until it is killed, and writes down how
// many it has made: flood FILE PAYLOAD NETWORK/ADDRESS...
func floodAct(args []string) error {
	var made, worked atomic.Uint64
	var group sync.WaitGroup
	for _, target := range args[2:] {
		group.Go(func() {
			for {
				if send(target, args[1], 300*time.Millisecond) == nil {
					worked.Add(1)
				}
				made.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	for {
		if err := note(args[0], "%d %d", made.Load(), worked.Load()); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}
