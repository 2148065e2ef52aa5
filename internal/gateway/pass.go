package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/workload"
)

// servePass checks the server name of a TLS connection and passes its bytes.
func (g *Gateway) servePass(ctx context.Context, c *net.TCPConn, run *workload.Run, dst netip.AddrPort, name Name) {
	start := g.opts.Now()
	first, ok := g.admitHello(ctx, c, run, dst, name)
	if !ok {
		return
	}
	if reason, ok := g.opts.Names.Admit(run.CgroupID, name.Host); !ok {
		g.refuseConn(ctx, run, dst, name, reason)
		abort(c)
		return
	}
	r := connectRequest(run, name, dst.Port())
	d, err := g.opts.Decider.Decide(ctx, r)
	if err != nil {
		g.opts.Log.Error("connect decision failed", "run", run.ID, "decision", d.ID, "error", err)
	}
	e := outcomeOf(r, d, run)
	if !d.Allowed() {
		e.Reason, e.Duration = lastReason(d), g.opts.Now().Sub(start)
		g.report(ctx, e)
		abort(c)
		return
	}
	defer func() {
		e.Duration = g.opts.Now().Sub(start)
		g.report(ctx, e)
	}()
	up, err := g.dial(ctx, upstream{host: name.Host, port: dst.Port(), within: name.Within, via: name.Via, run: run})
	if err != nil {
		e.Error = err.Error()
		abort(c)
		return
	}
	defer up.Close()
	e.Target.Address = up.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	e.Sent, e.Received, err = copyBoth(ctx, c, up, first)
	if err != nil {
		e.Error = err.Error()
	}
}

// admitHello returns the bytes that were read to know the server name. An
// opaque name has none, since there the server may be the first to speak.
func (g *Gateway) admitHello(ctx context.Context, c *net.TCPConn, run *workload.Run, dst netip.AddrPort, name Name) ([]byte, bool) {
	if name.Opaque {
		return nil, true
	}
	first, sni, err := peekHello(c, g.opts.HelloTimeout)
	if err == nil && strings.EqualFold(sni, name.Host) {
		return first, true
	}
	reason, alert := decision.Reason{
		Rule: "sni-mismatch",
		Text: fmt.Sprintf("The TLS hello names %.255q, but the address stands for %q.", sni, name.Host),
	}, alertUnrecognisedName
	if err != nil {
		reason, alert = helloRefusal(err)
	}
	g.refuseConn(ctx, run, dst, name, reason)
	_, _ = c.Write([]byte(alert)) // closed next, whether or not it arrives
	linger(c)
	return nil, false
}

// connectRequest is what policy is asked about a connection by name.
func connectRequest(run *workload.Run, name Name, port uint16) decision.Request {
	r := decision.Request{
		Kind: decision.KindConnect, Run: run.Run, Actor: run.Actor,
		Action: "connect", Risk: decision.RiskRead,
		Target: decision.Target{Name: name.Host, Port: port, Protocol: "tcp"},
	}
	if name.Tool != nil {
		r.Tool, r.ToolRevision = name.Tool.Name, name.Tool.Revision
	}
	return r
}

// outcomeOf begins the event that ends what d began.
func outcomeOf(r decision.Request, d decision.Decision, run *workload.Run) Event {
	e := about(ActivityOutcome, r.Kind, run)
	e.Tool, e.Action, e.Risk, e.Target, e.Digest, e.HTTP = r.Tool, r.Action, r.Risk, r.Target, r.Digest, r.HTTP
	e.DecisionID, e.ApprovalID = d.ID, d.ApprovalID
	return e
}

// lastReason is the latest word on a decision: an approver's, if there was one.
func lastReason(d decision.Decision) decision.Reason {
	if n := len(d.Reasons); n > 0 {
		return d.Reasons[n-1]
	}
	return decision.Reason{Rule: "none", Text: "No reason was given."}
}

// abort makes the close that follows a reset, which programs report at once
// and as what it is: a refused connection, not an empty reply.
func abort(c *net.TCPConn) { _ = c.SetLinger(0) }

// linger ends our half and reads a little of what is under way, so that the
// close does not become a reset that overtakes the alert (RFC 1122 section
// 4.2.2.13).
func linger(c *net.TCPConn) {
	_ = c.CloseWrite()
	drain(c)
}
