package chaos

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// client makes attempts. Its sockets are plain ones, so that nothing between it
// and the kernel chooses a family or repeats anything.
type client struct {
	agent   string
	from    byte          // the host whose address it sends from, 0: the kernel's choice
	limit   time.Duration // of each step of an attempt
	broken  atomic.Uint64 // kept connections that ended
	mu      sync.Mutex
	first   netip.Addr // that its name had
	keeping int        // descriptor of the kept connection, 0: none; used by one goroutine only
}

// socket says which socket to make, and whether to send without connecting.
type socket struct {
	family, kind int
	unconnected  bool
}

// Sockets of flows that go to an answer of the name server.
var (
	tcp4 = socket{family: unix.AF_INET, kind: unix.SOCK_STREAM}
	tcp6 = socket{family: unix.AF_INET6, kind: unix.SOCK_STREAM}
	udp4 = socket{family: unix.AF_INET, kind: unix.SOCK_DGRAM}
	udp6 = socket{family: unix.AF_INET6, kind: unix.SOCK_DGRAM}
)

// longLimit is how long a step may take that is a failure if it does not succeed.
// It is generous, because a busy machine is no failure.
const longLimit = 15 * time.Second

// other is the agent that this one is not.
func (c *client) other() string {
	if c.agent == beta {
		return alpha
	}
	return beta
}

// exchange sends a payload and wants it back.
func (c *client) exchange(s socket, to netip.AddrPort, payload string) error {
	answer, err := c.ask(s, to, payload, len(payload))
	if err == nil && answer != payload {
		err = fmt.Errorf("got %q back", answer)
	}
	return err
}

// ask sends a payload and returns the answer: the next datagram, or so many bytes.
func (c *client) ask(s socket, to netip.AddrPort, payload string, size int) (string, error) {
	fd, err := c.open(s, to.Addr(), c.limit)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if s.unconnected {
		err = unix.Sendto(fd, []byte(payload), 0, s.address(to))
	} else if err = connect(fd, s.address(to)); err == nil {
		_, err = unix.Write(fd, []byte(payload))
	}
	if err != nil {
		return "", err
	}
	return receive(fd, s.kind, size)
}

// connect goes on when a signal of Go's scheduler comes between (connect(2)).
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY) {
		err = unix.Connect(fd, to)
	}
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

// receive reads a datagram, or a stream until it has so many bytes.
func receive(fd, kind, size int) (string, error) {
	buf := make([]byte, max(size, 1500))
	for got := 0; ; {
		n, err := unix.Read(fd, buf[got:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return "", err
		case n == 0:
			return "", io.ErrUnexpectedEOF
		}
		if got += n; kind == unix.SOCK_DGRAM || got >= size {
			return string(buf[:got]), nil
		}
	}
}

// open makes a socket whose steps are bounded and whose port is free again as
// soon as it is closed (socket(7), SO_SNDTIMEO also bounds connect; SO_LINGER).
func (c *client) open(s socket, to netip.Addr, limit time.Duration) (_ int, err error) {
	fd, err := unix.Socket(s.family, s.kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	bound := unix.NsecToTimeval(limit.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &bound),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &bound))
	if s.kind == unix.SOCK_STREAM {
		err = errors.Join(err, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	}
	if c.from != 0 && err == nil {
		err = unix.Bind(fd, s.address(netip.AddrPortFrom(addressOf(c.from, to), 0)))
	}
	return fd, err
}

// addressOf is a machine's address of the family of another.
func addressOf(host byte, like netip.Addr) netip.Addr {
	if like.Is4() {
		return v4(host)
	}
	return v6(host)
}

// address is where a socket of this family finds an address.
func (s socket) address(to netip.AddrPort) unix.Sockaddr {
	if s.family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// named asks for the agent's own name and connects to the answer.
func (c *client) named(a attempt) error { return c.byName(a, nameOf(c.agent), 0) }

// byName asks for a name's address and connects to the answer. Where there is
// none, it tries the host that the name leads to all the same.
func (c *client) byName(a attempt, name string, guess byte) error {
	addr, err := c.resolve(name, a.N)
	if err != nil {
		if guess != 0 && c.from == 0 {
			_ = c.exchange(tcp4, netip.AddrPortFrom(v4(guess), port), a.payload())
		}
		return err
	}
	if addr.Is6() {
		return c.exchange(tcp6, netip.AddrPortFrom(addr, port), a.payload())
	}
	return c.exchange(tcp4, netip.AddrPortFrom(addr, port), a.payload())
}

// remembered connects to the first address that the agent's name had.
func (c *client) remembered(a attempt) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.first.IsValid() {
		addr, err := c.resolve(nameOf(c.agent), 0)
		if err != nil {
			return err
		}
		c.first = addr
	}
	return c.exchange(tcp4, netip.AddrPortFrom(c.first, port), a.payload())
}

// resolve asks the world's name server, by turns over IPv4 for an IPv4 address
// and over IPv6 for an IPv6 one.
func (c *client) resolve(name string, n uint64) (netip.Addr, error) {
	s, server, kind := udp4, v4(hostNames), dns.TypeA
	if n%2 == 1 {
		s, server, kind = udp6, v6(hostNames), dns.TypeAAAA
	}
	asked := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	question, err := asked.Pack()
	if err != nil {
		return netip.Addr{}, err
	}
	raw, err := c.ask(s, netip.AddrPortFrom(server, 53), string(question), 0)
	if err != nil {
		return netip.Addr{}, err
	}
	var answer dns.Msg
	if err := answer.Unpack([]byte(raw)); err != nil {
		return netip.Addr{}, err
	}
	// As every resolver does: a late answer may come to a port that somebody else
	// has had before (RFC 5452, section 9.1).
	if answer.Id != asked.Id || len(answer.Question) != 1 || answer.Question[0] != asked.Question[0] {
		return netip.Addr{}, fmt.Errorf("%s: the answer is to another question", name)
	}
	for _, rr := range answer.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ := netip.AddrFromSlice(rr.A.To4())
			return addr, nil
		case *dns.AAAA:
			addr, _ := netip.AddrFromSlice(rr.AAAA)
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s: %s", name, dns.RcodeToString[answer.Rcode])
}

// kept sends on one connection for as long as it holds.
func (c *client) kept(a attempt) error {
	if c.keeping == 0 {
		fd, err := c.keep()
		if err != nil {
			return err
		}
		c.keeping = fd
	}
	_, err := unix.Write(c.keeping, []byte(a.payload()))
	if err == nil {
		_, err = receive(c.keeping, unix.SOCK_STREAM, len(a.payload()))
	}
	if err != nil {
		c.broken.Add(1)
		err = errors.Join(err, unix.Close(c.keeping))
		c.keeping = 0
	}
	return err
}

func (c *client) keep() (int, error) {
	to := netip.AddrPortFrom(v4(hostListed), port)
	fd, err := c.open(tcp4, to.Addr(), longLimit)
	if err != nil {
		return 0, err
	}
	if err := connect(fd, tcp4.address(to)); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
