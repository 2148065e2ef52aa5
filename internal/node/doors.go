package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

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
	n.egress = egress.NewController(egress.Options{
		Datapath: n.kernel, Gate: n.kernel, Decider: n.engine, Events: egressEvents{n}, Log: n.Log,
	})
	n.dns = egress.NewServer(n.egress, n.kernel, n.resolver)
	n.endpoint = endpoint.New(endpoint.Options{
		Tokens: n.broker, Runs: n.runs, Refusals: &n.history, Events: endpointEvents{n}, Log: n.Log,
	})
	n.gateway = gateway.New(gateway.Options{
		Attributor: n.kernel, Runs: connectedRuns{n}, Names: names{n.egress}, Resolver: watchedResolver{n.resolver, n}, Decider: n.engine,
		Tokens: n.broker, Settler: settler{n}, Events: gatewayEvents{n}, Log: n.Log,
		Endpoint: n.endpoint.Serve, DNS: n.dns.ServeTCP,
	})
	return nil
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
		out.Within = name.Tool.Within
		out.Rule = decision.Reason{Rule: "tool." + name.Tool.Name, Text: "The host belongs to the tool."}
	case name.Rule != nil:
		out.Within, out.Opaque = name.Rule.Within, name.Rule.Opaque
		out.Rule = decision.Reason{Rule: name.Rule.Pos.String(), Text: "The rule lists the name."}
	default:
		return gateway.Name{}, false
	}
	return out, true
}

func (n *node) openTCP(address string) (uint16, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return 0, fmt.Errorf("listen for redirected connections: %w", err)
	}
	n.onStop(closeOnce(l))
	n.addTask("gateway "+address, func(ctx context.Context) error { return n.gateway.Serve(ctx, l.(*net.TCPListener)) })
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

func (n *node) openUDP(address string) (uint16, error) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return 0, fmt.Errorf("listen for questions: %w", err)
	}
	n.onStop(closeOnce(c))
	n.addTask("name server "+address, func(ctx context.Context) error { return n.dns.ServeUDP(ctx, c) })
	return uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
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
