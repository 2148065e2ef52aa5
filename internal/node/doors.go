package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/gateway"
)

// openGateway makes what stands behind the doors.
func (n *node) openGateway(context.Context) (err error) {
	cfg := n.Config().Node
	n.resolver, err = egress.NewResolver(egress.ResolverOptions{Upstreams: cfg.DNS.Upstreams, Timeout: cfg.DNS.Timeout, Log: n.Log})
	if err != nil {
		return err
	}
	n.addTask("name servers' health", n.watchUpstreams)
	n.egress = egress.NewController(egress.Options{
		Datapath: n.kernel, Gate: n.kernel, Leaser: n.kernel, Snapshot: n.resolver.Snapshot, Decider: n.engine, Events: egressEvents{n}, Log: n.Log, Keeper: keptNames{n.states},
		Families: n.families,
	})
	n.dns = egress.NewServer(n.egress, n.kernel, n.resolver)
	n.namespaces = newNamespaces(n)
	n.addTask("doors in other network namespaces", n.namespaces.run)
	n.endpoint = endpoint.New(endpoint.Options{
		Tokens: n.broker, Runs: n.runs, Refusals: &n.history, Events: endpointEvents{n}, Log: n.Log,
	})
	n.gateway = gateway.New(gateway.Options{
		Attributor: n.kernel, Dialer: n.namespaces, Runs: connectedRuns{n}, Names: names{n.egress}, Resolver: watchedResolver{n.resolver, n}, Decider: n.engine,
		Tokens: n.broker, Settler: settler{n}, Events: gatewayEvents{n}, Log: n.Log,
		Endpoint: n.endpoint.Serve, DNS: n.dns.ServeTCP,
	})
	return nil
}

// watchUpstreams turns name servers that do not answer into the health of the node.
func (n *node) watchUpstreams(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.resolver.Health(); err != nil {
			n.degraded(health.DNSUpstream, err.Error())
		} else {
			n.well(health.DNSUpstream)
		}
	}
}

// names tells the gateway what a synthetic address stands for.
type names struct{ c *egress.Controller }

// Lookup implements gateway.Names.
func (s names) Lookup(cgroupID uint64, dst netip.AddrPort) (gateway.Name, bool) {
	name, ok := s.c.Lookup(cgroupID, dst)
	if !ok {
		return gateway.Name{}, false
	}
	out := gateway.Name{Host: name.Host, Tool: name.Tool}
	switch {
	case name.Tool != nil:
		out.Within, out.Via = name.Tool.Within, name.Tool.Via
		out.Rule = decision.Reason{Rule: "tool." + name.Tool.Name, Text: "The host belongs to the tool."}
	case name.Rule != nil:
		out.Within, out.Via, out.Opaque = name.Rule.Within, name.Rule.Via, name.Rule.Opaque
		out.Rule = decision.Reason{Rule: name.Rule.Pos.String(), Text: "The rule lists the name."}
	default:
		return gateway.Name{}, false
	}
	return out, true
}

// Admit implements gateway.Names.
func (s names) Admit(cgroupID uint64, host string) (decision.Reason, bool) {
	return s.c.Admit(cgroupID, host)
}

func (n *node) openTCP(name, address string) (uint16, error) {
	l, err := n.door(name, func(f *os.File) (syscall.Conn, error) { return as[syscall.Conn](net.FileListener(f)) },
		func() (syscall.Conn, error) { return as[syscall.Conn](net.Listen("tcp", address)) })
	if err != nil {
		return 0, fmt.Errorf("listen for redirected connections: %w", err)
	}
	listener, ok := l.(*net.TCPListener)
	if !ok {
		return 0, fmt.Errorf("listen for redirected connections: the keeper has a %T as %s", l, name)
	}
	n.onStop(closeOnce(listener))
	n.addTask("gateway "+address, func(ctx context.Context) error { return n.gateway.Serve(ctx, listener) })
	return uint16(listener.Addr().(*net.TCPAddr).Port), nil
}

func (n *node) openUDP(name, address string) (uint16, error) {
	c, err := n.door(name, func(f *os.File) (syscall.Conn, error) { return as[syscall.Conn](net.FilePacketConn(f)) },
		func() (syscall.Conn, error) { return as[syscall.Conn](net.ListenPacket("udp", address)) })
	if err != nil {
		return 0, fmt.Errorf("listen for questions: %w", err)
	}
	conn, ok := c.(*net.UDPConn)
	if !ok {
		return 0, fmt.Errorf("listen for questions: the keeper has a %T as %s", c, name)
	}
	n.onStop(closeOnce(conn))
	n.addTask("name server "+address, func(ctx context.Context) error { return n.dns.ServeUDP(ctx, conn) })
	return uint16(conn.LocalAddr().(*net.UDPAddr).Port), nil
}

// as is for what is made as an interface of package net.
func as[T any](v any, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	t, ok := v.(T)
	if !ok {
		return none, fmt.Errorf("it is a %T", v)
	}
	return t, nil
}

// door takes a door that the keeper has held, with what waits there, or makes one.
// In both cases the keeper has it from then on.
func (n *node) door(name string, reuse func(*os.File) (syscall.Conn, error), open func() (syscall.Conn, error)) (c syscall.Conn, err error) {
	if f := n.found.TakeFile(name); f != nil {
		c, err = reuse(f)
		f.Close()
	} else {
		c, err = open()
	}
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := n.keeper.Put(name, raw); err != nil {
		n.Log.Warn("the keeper does not hold a door", "door", name, "error", err)
	}
	return c, nil
}

// closeOnce closes what its task may have closed before.
func closeOnce(c interface{ Close() error }) func() error {
	return func() error {
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// serveIssuer publishes discovery and keys.
func (n *node) serveIssuer(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for relying parties; choose another issuer.listen if the port is taken: %w", err)
	}
	n.onStop(closeOnce(l))
	srv := &http.Server{
		Handler: n.issuer.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	n.addTask("issuer listener", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { srv.Close() })
		defer stop()
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}
