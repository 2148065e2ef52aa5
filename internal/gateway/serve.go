package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// isEndpoint knows the addresses of the local endpoint. They are those at which
// credential clients look (Amazon ECS task roles, Amazon EKS pod identity).
func isEndpoint(dst netip.AddrPort) bool {
	switch dst.String() {
	case "169.254.170.2:80", "[fd00:ec2::23]:80":
		return true
	}
	return false
}

// dnsPort is where every question is redirected, whomever it asks.
const dnsPort = 53

// Serve accepts from l until ctx ends or accepting fails for good. It closes l
// and returns after every connection that it has accepted is closed.
func (g *Gateway) Serve(ctx context.Context, l *net.TCPListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !passing(err) {
				return fmt.Errorf("accept redirected connections: %w", err)
			}
			g.opts.Log.Warn("connection not accepted", "error", err)
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		g.count.accepted.Add(1)
		open.Go(func() { g.serveConn(ctx, c) })
	}
}

// passing reports whether accept may succeed later: out of descriptors, or the
// peer was gone (accept(2)).
func passing(err error) bool {
	return !errors.Is(err, net.ErrClosed) && isTemporary(err)
}

func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serveConn finds out whose c is, and serves it.
func (g *Gateway) serveConn(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	cgroupID, _, dst, err := g.opts.Attributor.Attribute(c)
	if err != nil {
		g.unattributed(ctx, 0, err.Error())
		return
	}
	run, ok := g.opts.Runs.ByCgroup(cgroupID)
	if !ok {
		g.unattributed(ctx, cgroupID, "the cgroup is not that of a run")
		return
	}
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	ctx, release, err := g.conns.acquire(ctx, run.ID, dst)
	if err != nil {
		g.count.limited.Add(1)
		g.refuseConn(ctx, run, dst, Name{}, limitReason(err))
		return
	}
	defer release()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // revoked, or shutting down
	defer stop()
	g.dispatch(ctx, c, run, dst)
}

// dispatch chooses the handler by where the program meant to connect to.
func (g *Gateway) dispatch(ctx context.Context, c *net.TCPConn, run *workload.Run, dst netip.AddrPort) {
	switch {
	case isEndpoint(dst):
		g.opts.Endpoint(ctx, c, run)
	case dst.Port() == dnsPort:
		g.opts.DNS(ctx, c, run)
	default:
		g.serveName(ctx, c, run, dst)
	}
}

func (g *Gateway) serveName(ctx context.Context, c *net.TCPConn, run *workload.Run, dst netip.AddrPort) {
	name, ok := g.opts.Names.Lookup(run.CgroupID, dst)
	if !ok {
		g.refuseConn(ctx, run, dst, name, decision.Reason{
			Rule: "unknown-name", Text: "The address and port stand for no name that the run may use.",
		})
		return
	}
	if name.Tool != nil && name.Tool.Client == tool.ClientHTTP {
		if plain, ok := g.readPlainly(ctx, c, run, dst, name); ok {
			g.serveHTTP(ctx, plain, run, dst)
		}
		return
	}
	g.servePass(ctx, c, run, dst, name)
}

// unattributed counts a connection of nobody. Events about them are limited,
// since anybody on the node may connect to a listener.
func (g *Gateway) unattributed(ctx context.Context, cgroupID uint64, why string) {
	g.count.unattributed.Add(1)
	g.unknownNew.Add(1)
	if !g.unknown.Allow() {
		return
	}
	g.report(ctx, Event{
		Activity: ActivityUnattributed, Kind: decision.KindConnect, CgroupID: cgroupID, Count: g.unknownNew.Swap(0),
		Reason: decision.Reason{Rule: "unattributed", Text: why},
	})
}

// refuseConn reports a connection that is closed without a decision.
func (g *Gateway) refuseConn(ctx context.Context, run *workload.Run, dst netip.AddrPort, name Name, why decision.Reason) {
	e := about(ActivityRefused, decision.KindConnect, run)
	e.Reason = why
	e.Target = decision.Target{Name: name.Host, Port: dst.Port(), Protocol: "tcp"}
	if name.Host == "" {
		e.Target.Address = dst.Addr()
	}
	if name.Tool != nil {
		e.Tool = name.Tool.Name
	}
	g.report(ctx, e)
}
