package chaos

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// flow is one kind of attempts.
type flow struct {
	name    string
	allowed bool
	// direct: the kernel decides by itself, so it goes on whatever becomes of the
	// daemon. The others need its name server and its gateway.
	direct bool
	try    func(*client, attempt) error
}

// The flows that are judged one by one; the other allowed ones are ways to the
// same places.
const (
	flowName       = "name"       // asks, and connects to the answer
	flowRemembered = "remembered" // connects to the first answer that it got
	flowKept       = "kept4"      // one connection for as long as it holds
)

// directFlows have to arrive in every interruption.
func directFlows() []string { return []string{"tcp4", "tcp6", "udp4", "udp6"} }

// namedFlows have to arrive again after it.
func namedFlows() []string { return []string{flowName, flowRemembered} }

// way is how a program can reach an address.
type way struct {
	name   string
	socket socket
	v6     bool // to the IPv6 address of the host
}

// ways are all families and types of sockets, and both moments at which a
// datagram's address can be named. Mapped is IPv4 through an IPv6 socket.
func ways() []way {
	return []way{
		{"tcp4", socket{unix.AF_INET, unix.SOCK_STREAM, false}, false},
		{"tcp6", socket{unix.AF_INET6, unix.SOCK_STREAM, false}, true},
		{"tcp-mapped", socket{unix.AF_INET6, unix.SOCK_STREAM, false}, false},
		{"udp4", socket{unix.AF_INET, unix.SOCK_DGRAM, false}, false},
		{"udp6", socket{unix.AF_INET6, unix.SOCK_DGRAM, false}, true},
		{"udp-mapped", socket{unix.AF_INET6, unix.SOCK_DGRAM, false}, false},
		{"sendto4", socket{unix.AF_INET, unix.SOCK_DGRAM, true}, false},
		{"sendto6", socket{unix.AF_INET6, unix.SOCK_DGRAM, true}, true},
		{"sendto-mapped", socket{unix.AF_INET6, unix.SOCK_DGRAM, true}, false},
	}
}

// flows are all kinds of attempts.
func flows() []flow {
	all := []flow{
		{flowKept, true, true, (*client).kept},
		{flowName, true, false, (*client).named},
		{flowRemembered, true, false, (*client).remembered},
		{"name-unlisted", false, false, func(c *client, a attempt) error { return c.byName(a, a.question(), hostUnlisted) }},
		{"name-other", false, false, func(c *client, a attempt) error { return c.byName(a, nameOf(c.other()), hostOf(c.other())) }},
		{"named-address", false, false, func(c *client, a attempt) error {
			return c.exchange(tcp4, netip.AddrPortFrom(v4(hostOf(c.agent)), port), a.payload())
		}},
	}
	for _, w := range ways() {
		all = append(all, flow{w.name, true, true, w.to(hostListed, port)},
			flow{w.name + "-unlisted", false, false, w.to(hostUnlisted, port)},
			flow{w.name + "-port", false, false, w.to(hostListed, otherPort)})
	}
	return all
}

func (w way) to(host byte, port uint16) func(*client, attempt) error {
	address := v4(host)
	if w.v6 {
		address = v6(host)
	}
	to := netip.AddrPortFrom(address, port)
	return func(c *client, a attempt) error { return c.exchange(w.socket, to, a.payload()) }
}

// flowsWhere returns the names of the flows that fulfil a condition, in order.
func flowsWhere(is func(flow) bool) []string {
	var names []string
	for _, f := range flows() {
		if is(f) {
			names = append(names, f.name)
		}
	}
	slices.Sort(names)
	return names
}

// attempt is one of them.
type attempt struct {
	Who   string `json:"who"` // label of a run, or outsiders
	Agent string `json:"agent"`
	Flow  string `json:"flow"`
	N     uint64 `json:"n"`
}

// payload is what is sent: it tells the receiver everything.
func (a attempt) payload() string {
	return fmt.Sprintf("chaos %s %s %s %d\n", a.Who, a.Agent, a.Flow, a.N)
}

// question is an unlisted name that tells the name server as much.
func (a attempt) question() string { return fmt.Sprintf("n%d.%s.%s.%s", a.N, a.Agent, a.Who, exfil) }

// readAttempt reads a payload.
func readAttempt(payload string) (a attempt, ok bool) {
	n, err := fmt.Sscanf(payload, "chaos %s %s %s %d\n", &a.Who, &a.Agent, &a.Flow, &a.N)
	return a, err == nil && n == 4
}
