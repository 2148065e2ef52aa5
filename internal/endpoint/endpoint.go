// Package endpoint answers a run at a link-local address: with tokens for the
// run's tools, with why something was refused, and with who it is.
//
// Who asks is known from the connection, which the kernel attributes to a run.
// Nothing in a request can change that, and nobody outside a run gets here.
// What a request can be is one that somebody else made the run's programs
// send: by a redirect, from a web page, through a proxy. Such requests are
// refused.
package endpoint

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway/oneconn"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// Tokens makes tokens; *broker.Broker is one.
type Tokens interface {
	Token(ctx context.Context, run *workload.Run, t *tool.Tool) (broker.Lease, error)
}

// Runs finds live runs; *workload.Registry is one.
type Runs interface {
	ByCgroup(id uint64) (*workload.Run, bool)
}

// Refusals remembers what was refused; *History is one. Recent returns the
// latest first.
type Refusals interface {
	Recent(cgroupID uint64) []Refusal
}

// Event is a request that was refused before any decision.
type Event struct {
	Run    *workload.Run
	Tool   string // as it was asked for, at most 128 bytes: data, not a tool's name
	Reason decision.Reason
}

// Events keeps the refusals of the endpoint. An error means that the event is
// lost; it is logged.
type Events interface {
	Refused(ctx context.Context, e Event) error
}

// Options are an Endpoint's parts. All are needed but Hosts and Now.
type Options struct {
	Tokens   Tokens
	Runs     Runs
	Refusals Refusals
	Events   Events
	Log      *slog.Logger
	Hosts    []string // further values of the Host header, lower case
	Now      func() time.Time
}

// Endpoint serves runs. It is safe for concurrent use.
type Endpoint struct {
	opts  Options
	hosts map[string]struct{}
}

// New returns an Endpoint.
func New(opts Options) *Endpoint {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	hosts := map[string]struct{}{
		"169.254.170.2": {}, "169.254.170.2:80": {}, "[fd00:ec2::23]": {}, "[fd00:ec2::23]:80": {},
	}
	for _, h := range opts.Hosts {
		hosts[h] = struct{}{}
	}
	return &Endpoint{opts: opts, hosts: hosts}
}

// Serve answers the requests on one connection of a run, and returns after c
// is closed or ctx ends.
func (e *Endpoint) Serve(ctx context.Context, c net.Conn, run *workload.Run) {
	oneconn.Serve(ctx, c, &caller{e: e, run: run}, e.opts.Log)
}

// caller is the run at the other end of one connection.
type caller struct {
	e   *Endpoint
	run *workload.Run
}

// ServeHTTP checks where a request comes from, and answers it. The run is
// looked up each time, so that a reload is seen and an ended run is not served.
func (c *caller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	run, ok := c.e.opts.Runs.ByCgroup(c.run.CgroupID)
	if !ok || run.ID != c.run.ID {
		w.Header().Set("Connection", "close")
		write(w, denial{http.StatusForbidden, "run-ended", "The run has ended.", ""})
		return
	}
	if d := c.e.vet(r); d != nil {
		c.e.refuse(w, r, run, *d)
		return
	}
	switch r.URL.Path {
	case "/v1/token":
		c.e.token(w, r, run)
	case "/v1/why":
		c.e.why(w, r, run)
	case "/v1/whoami":
		c.e.whoami(w, run)
	default:
		write(w, denial{http.StatusNotFound, "not-found", "There is no such page.", "GET /v1/token?tool=NAME, /v1/why or /v1/whoami."})
	}
}

// refuse answers a suspicious request and reports it.
func (e *Endpoint) refuse(w http.ResponseWriter, r *http.Request, run *workload.Run, d denial) {
	asked := r.URL.Query().Get("tool")
	event := Event{
		Run: run, Tool: asked[:min(len(asked), 128)], Reason: decision.Reason{Rule: d.reason, Text: d.detail},
	}
	if err := e.opts.Events.Refused(context.WithoutCancel(r.Context()), event); err != nil {
		e.opts.Log.Error("endpoint event lost", "run", run.ID, "error", err)
	}
	w.Header().Set("Connection", "close")
	write(w, d)
}
