package gateway

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway/oneconn"
	"github.com/varvel/varvel/internal/gateway/problem"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// session is one connection in http mode.
type session struct {
	g        *Gateway
	ctx      context.Context // ends when the run is revoked
	cgroupID uint64
	runID    string
	dst      netip.AddrPort
}

// serveHTTP serves the requests of a connection.
func (g *Gateway) serveHTTP(ctx context.Context, c net.Conn, run *workload.Run, dst netip.AddrPort) {
	s := &session{g: g, ctx: ctx, cgroupID: run.CgroupID, runID: run.ID, dst: dst}
	oneconn.Serve(ctx, c, s, g.opts.Log)
}

// exchange is one request and all that is known of it. Its fields are filled
// in from top to bottom.
type exchange struct {
	s     *session
	g     *Gateway
	w     http.ResponseWriter
	r     *http.Request
	start time.Time

	run      *workload.Run
	name     Name
	tool     *tool.Tool
	target   target
	action   tool.Action // the zero value if none matches
	stripped bool        // the workload's own credential header was removed
	body     *body       // nil: streamed
	request  decision.Request
	decision decision.Decision
}

// ServeHTTP judges a request and, if it is allowed, sends it on once.
//
// The run and the name are looked up for each request, so that a connection
// which is kept alive sees a changed configuration.
func (s *session) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, g: s.g, w: w, r: r, start: s.g.opts.Now()}
	for _, step := range []func() bool{x.find, x.vet, x.read, x.judge} {
		if !step() {
			return
		}
	}
	x.send()
}

// find looks up whose request it is, and for which tool.
func (x *exchange) find() bool {
	var ok bool
	if x.run, ok = x.g.opts.Runs.ByCgroup(x.s.cgroupID); !ok || x.run.ID != x.s.runID {
		x.w.Header().Set("Connection", "close")
		problem.Write(x.w, problem.Details{Status: http.StatusForbidden, Reason: "run-ended", Detail: "The run has ended."})
		return false
	}
	x.name, ok = x.g.opts.Names.Lookup(x.s.cgroupID, x.s.dst)
	if !ok || x.name.Tool == nil || x.name.Tool.Client != tool.ClientHTTP {
		x.refuse(&refusal{http.StatusForbidden, "unknown-name", "The run may not use this name in this way any more."})
		return false
	}
	x.tool = x.name.Tool
	return true
}

// vet brings the request into its one canonical form, or refuses it.
func (x *exchange) vet() bool {
	dialled := x.s.dst.Port()
	t, refused := vet(x.r, x.name.Host, dialled, x.tool.UpstreamPort(x.name.Host, dialled))
	if refused != nil {
		x.refuse(refused)
		return false
	}
	x.target = t
	removeHopByHop(x.r.Header)
	if a := attachOf(x.tool); a != nil {
		_, x.stripped = x.r.Header[a.Header]
		delete(x.r.Header, a.Header)
	}
	x.action, _ = x.tool.Match(t.method, t.path)
	return true
}

// attachOf returns how the gateway attaches the tool's token, or nil.
func attachOf(t *tool.Tool) *tool.Attach {
	if t.Credential == nil {
		return nil
	}
	return t.Credential.Attach
}

// plain reports whether the upstream is reached without TLS.
func (x *exchange) plain() bool { return x.tool.Upstream == tool.UpstreamPlain }

// bound reports whether the exact request is known before it is judged, so
// that an approval can bind to it. Reads are streamed.
func (x *exchange) bound() bool {
	return x.action.Risk == decision.RiskWrite || x.action.Risk == decision.RiskIrreversible
}

// judge asks for the decision, which may wait for a person.
func (x *exchange) judge() bool {
	d, err := x.g.opts.Decider.Decide(x.r.Context(), x.request)
	x.decision = d
	if err != nil {
		x.g.opts.Log.Error("request decision failed", "run", x.run.ID, "decision", d.ID, "error", err)
	}
	if d.Allowed() {
		return true
	}
	x.denied()
	return false
}

// describe is the request as policy sees it.
func (x *exchange) describe() decision.Request {
	return decision.Request{
		Kind: decision.KindHTTP, Run: x.run.Run, Actor: x.run.Actor,
		Tool: x.tool.Name, Action: x.action.Name, Risk: x.action.Risk,
		Target: decision.Target{Name: x.target.host, Port: x.target.port, Protocol: "tcp"},
		HTTP: &decision.HTTP{
			Method: x.target.method, Authority: x.target.authority(x.plain()),
			Path: x.target.path, Query: x.target.query, BodySize: -1,
		},
		Threshold: x.action.Threshold, ApprovalKind: x.action.Approval, ToolRevision: x.tool.Revision,
	}
}
