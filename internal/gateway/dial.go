package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

const (
	// stagger is how long one address has before the next is tried beside it
	// (RFC 8305 section 5, "Connection Attempt Delay").
	stagger = 250 * time.Millisecond
	// maxAddresses bounds the addresses of one name that are tried.
	maxAddresses = 8
)

// upstream is where a connection goes.
type upstream struct {
	host   string
	port   uint16
	within []netip.Prefix
	plain  bool // only to loopback or within
	via    string
	run    *workload.Run // whose namespace is dialled from, if via says so
}

var errNoDialer = errors.New("nothing here can dial from the network namespace of a run")

// dialer connects to one address.
type dialer func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error)

// dialerOf chooses the namespace to dial from.
func (g *Gateway) dialerOf(u upstream) dialer {
	switch {
	case u.via != tool.ViaWorkload:
		return dialHere
	case g.opts.Dialer == nil:
		return func(context.Context, netip.AddrPort) (*net.TCPConn, error) { return nil, errNoDialer }
	}
	return func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
		return g.opts.Dialer.DialFrom(ctx, u.run, to)
	}
}

func dialHere(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// dial resolves, checks every address, and connects to the first that answers.
// Nothing is sent to an address that was not checked in this very call.
func (g *Gateway) dial(ctx context.Context, u upstream) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, g.opts.DialTimeout)
	defer cancel()
	addrs, err := g.opts.Resolver.Resolve(ctx, u.host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", u.host, err)
	}
	addrs, refused := g.checked(addrs, u)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address that may be dialled: %w", u.host, refused)
	}
	return race(ctx, g.dialerOf(u), addrs, u.port)
}

// checked keeps the addresses that may be dialled, in order.
func (g *Gateway) checked(addrs []netip.Addr, u upstream) ([]netip.Addr, error) {
	var good []netip.Addr
	refused := errors.New("no address")
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		a = a.Unmap()
		err := g.opts.Resolver.Check(a, u.within)
		if err == nil && u.plain && !plainAllowed(a, u.within) {
			err = fmt.Errorf("%s is neither loopback nor in within, and upstream: plain goes nowhere else", a)
		}
		if err != nil {
			refused = err
			continue
		}
		good = append(good, a)
	}
	return good, refused
}

func plainAllowed(a netip.Addr, within []netip.Prefix) bool {
	for _, p := range within {
		if p.Contains(a) {
			return true
		}
	}
	return a.IsLoopback()
}

type dialled struct {
	conn *net.TCPConn
	err  error
}

// race connects to the addresses in order, the next one beside the others
// after the stagger or at once after a failure. The first success wins; the
// others are cancelled, and have ended when race returns.
func race(ctx context.Context, dial dialer, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialled, len(addrs)) // no attempt blocks on it
	timer := time.NewTimer(0)
	defer timer.Stop()
	var errs []error
	for next, pending := 0, 0; ; {
		select {
		case <-timer.C:
			if next < len(addrs) {
				go attempt(ctx, dial, netip.AddrPortFrom(addrs[next], port), results)
				next, pending = next+1, pending+1
				timer.Reset(stagger)
			}
		case r := <-results:
			pending--
			if r.err == nil {
				cancel()
				closeLosers(results, pending)
				return r.conn, nil
			}
			if errs = append(errs, r.err); len(errs) == len(addrs) {
				return nil, errors.Join(errs...)
			}
			timer.Reset(0)
		}
	}
}

// attempt always sends exactly one result; ctx bounds it.
func attempt(ctx context.Context, dial dialer, addr netip.AddrPort, results chan<- dialled) {
	c, err := dial(ctx, addr)
	results <- dialled{c, err}
}

// closeLosers ends with the attempts, whose context is cancelled.
func closeLosers(results <-chan dialled, pending int) {
	for range pending {
		if r := <-results; r.conn != nil {
			_ = r.conn.Close()
		}
	}
}
