package admin

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

func auditParams() []string {
	return []string{"run", "agent", "actor", "kind", "effect", "decision", "approval", "since", "until", "after", "limit", "newest", "follow"}
}

// audit streams events as NDJSON. The trailer says whether the stream is
// complete, or why it is not.
func (s *Server) audit(w http.ResponseWriter, r *request) {
	f, follow, err := parseFilter(r.query)
	if err != nil {
		s.fail(w, r.Request, err)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		s.refuse(w, r.Request, problem(http.StatusTooManyRequests, api.CodeTooMany,
			fmt.Sprintf("%d streams of events are open, which is the limit.", maxStreams), "Wait for one to end."))
		return
	}
	events := s.opts.Audit.Query
	if follow {
		events = s.opts.Audit.Follow
	}
	w.Header().Set("Content-Type", api.ContentTypeEvents)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Trailer", api.TrailerError+", "+api.TrailerEnd)
	w.WriteHeader(http.StatusOK)
	s.send(w, r, events(r.Context(), f), follow)
}

// send writes the events and the trailer. A client that does not read for too
// long is cut off.
func (s *Server) send(w http.ResponseWriter, r *request, events iter.Seq2[audit.Event, error], follow bool) {
	out := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	extend(w)
	if follow {
		s.flush(out)
	}
	for e, err := range events {
		if err != nil {
			s.opts.Log.Warn("audit query failed", "error", err)
			w.Header().Set(api.TrailerError, "the audit log could not be read to the end; see the daemon's log, and run: varvel audit verify")
			return
		}
		extend(w)
		if err := enc.Encode(e); err != nil {
			s.opts.Log.Debug("audit stream ended by the client", "error", err)
			return
		}
		if follow {
			s.flush(out)
		}
	}
	if r.Context().Err() == nil {
		w.Header().Set(api.TrailerEnd, "true")
	}
}

func (s *Server) flush(out *http.ResponseController) {
	if err := out.Flush(); err != nil {
		s.opts.Log.Debug("audit stream not flushed", "error", err)
	}
}

// extend gives the client another while to take what comes next.
func extend(w http.ResponseWriter) {
	// Only a connection that is gone has no deadline; the write then says so.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// parseFilter reads the parameters of /v1/audit.
func parseFilter(q url.Values) (f audit.Filter, follow bool, err error) {
	f = audit.Filter{
		Run: q.Get("run"), Agent: q.Get("agent"), Actor: q.Get("actor"), Kind: audit.Kind(q.Get("kind")),
		Effect: decision.Effect(q.Get("effect")), DecisionID: q.Get("decision"), ApprovalID: q.Get("approval"),
	}
	p := paramReader{q: q}
	f.Since, f.Until = p.time("since"), p.time("until")
	f.After, f.Limit = p.number("after", 63), int(p.number("limit", 31))
	f.Newest, follow = p.flag("newest"), p.flag("follow")
	switch {
	case p.err != nil:
		return f, false, p.err
	case f.Kind != "" && !f.Kind.Known():
		return f, false, badRequest(fmt.Sprintf("The kind %.40q is not known.", string(f.Kind)))
	case f.Effect != "" && f.Effect != decision.EffectAllow && f.Effect != decision.EffectDeny && f.Effect != decision.EffectHold:
		return f, false, badRequest("The effect must be allow, deny or hold.")
	case f.Newest && (follow || f.Limit == 0):
		return f, false, badRequest("newest needs a limit, and does not go with follow.")
	}
	return f, follow, nil
}

// paramReader reads parameters and keeps the first error.
type paramReader struct {
	q   url.Values
	err error
}

func (p *paramReader) fail(name, want string) {
	if p.err == nil {
		p.err = badRequest(fmt.Sprintf("The parameter %s must be %s.", name, want))
	}
}

func (p *paramReader) time(name string) time.Time {
	s := p.q.Get(name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		p.fail(name, "a time as in 2026-01-02T15:04:05Z")
	}
	return t
}

func (p *paramReader) number(name string, bits int) uint64 {
	s := p.q.Get(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil {
		p.fail(name, "a whole number")
	}
	return n
}

func (p *paramReader) flag(name string) bool {
	s := p.q.Get(name)
	if s != "" && s != "true" && s != "false" {
		p.fail(name, "true or false")
	}
	return s == "true"
}
