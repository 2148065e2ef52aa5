package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/kernel"
)

// loopbackPeriod is how often it is looked whether the loopback addresses are
// still there.
const loopbackPeriod = 2 * time.Second

// openDoors listens where the kernel sends what it redirects, and tells it so. A
// host may lack a loopback address: what would need that door is refused, with a
// reason that says so. Without either there is nothing to redirect to.
func (n *node) openDoors(context.Context) error {
	err4 := n.openFamily("4", "127.0.0.1:0", &n.doors.TCP4, &n.doors.UDP4)
	err6 := n.openFamily("6", "[::1]:0", &n.doors.TCP6, &n.doors.UDP6)
	if err4 != nil && err6 != nil {
		return fmt.Errorf("neither 127.0.0.1 nor ::1 can be listened on; is the loopback device up?: %w", errors.Join(err4, err6))
	}
	for _, err := range []error{err4, err6} {
		if err != nil {
			n.Log.Warn("a loopback address is missing; what would be redirected to it is refused", "error", err)
		}
	}
	n.addTask("loopback addresses", n.watchLoopback)
	return n.applyDoors(loopbackAddresses())
}

// openFamily opens both doors of a family, or neither counts.
func (n *node) openFamily(family, address string, tcp, udp *uint16) (err error) {
	t, err := n.openTCP("door/tcp"+family, address)
	if err != nil {
		return err
	}
	u, err := n.openUDP("door/udp"+family, address)
	if err != nil {
		return err
	}
	*tcp, *udp = t, u
	return nil
}

// watchLoopback closes a door whose address is taken away, and opens it again.
func (n *node) watchLoopback(ctx context.Context) error {
	return every(ctx, loopbackPeriod, func() {
		if err := n.applyDoors(loopbackAddresses()); err != nil {
			n.Log.Error("the kernel was not told which doors are open", "error", err)
		}
	})
}

// loopbackAddresses are those of 127.0.0.1 and ::1 that the host has.
func loopbackAddresses() (has4, has6 bool) {
	return hasAddress("127.0.0.1"), hasAddress("::1")
}

// hasAddress reports whether an address of the host can be used from the host. To
// bind it and to connect to it, which sends nothing, takes the address, the family
// and a route to it. What fails for another reason says nothing about it.
func hasAddress(address string) bool {
	a := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), discardPort))
	c, err := net.DialUDP("udp", &net.UDPAddr{IP: a.IP}, a)
	if err != nil {
		return !isMissing(err)
	}
	c.Close()
	return true
}

// discardPort is any port that is not 0, which connect(2) doesn't take.
const discardPort = 9

// isMissing reports whether an error means that an address, its route or its family
// is not there.
func isMissing(err error) bool {
	for _, missing := range []error{unix.EADDRNOTAVAIL, unix.EAFNOSUPPORT, unix.ENETUNREACH, unix.EHOSTUNREACH} {
		if errors.Is(err, missing) {
			return true
		}
	}
	return false
}

// applyDoors tells the kernel and the operator which doors can be reached.
func (n *node) applyDoors(has4, has6 bool) error {
	d := n.doors
	if !has4 {
		d.TCP4, d.UDP4 = 0, 0
	}
	if !has6 {
		d.TCP6, d.UDP6 = 0, 0
	}
	if old := n.reachable.Load(); old != nil && *old == d {
		return nil
	}
	if err := n.kernel.SetDoors(d); err != nil {
		return err
	}
	n.reachable.Store(&d)
	missing := missingLoopback(d)
	n.finding(health.LoopbackMissing, fmt.Errorf("missing: %s", strings.Join(missing, ", ")), len(missing) > 0)
	return nil
}

// families says over which families a run in a network namespace can be redirected.
func (n *node) families(ns uint64) (has4, has6 bool) {
	d := n.reachable.Load()
	if d == nil {
		return true, true // before the first look
	}
	lacks4, lacks6 := n.namespaces.lacks(ns)
	return d.TCP4 != 0 && !lacks4, d.TCP6 != 0 && !lacks6
}

func missingLoopback(d kernel.Doors) []string {
	var missing []string
	if d.TCP4 == 0 {
		missing = append(missing, "127.0.0.1")
	}
	if d.TCP6 == 0 {
		missing = append(missing, "::1")
	}
	return missing
}

// redirection is the control that says over which families names and the endpoint
// are reached.
func (n *node) redirection() api.Control {
	c := api.Control{Name: "redirection", Active: true, Detail: "names, questions and the endpoint, over IPv4 and IPv6"}
	d := n.reachable.Load()
	if d == nil {
		return c
	}
	if missing := missingLoopback(*d); len(missing) > 0 {
		c.Active = false
		c.Detail = fmt.Sprintf("the host lacks %s: what would be redirected there is refused as no-loopback", strings.Join(missing, " and "))
	}
	return c
}
