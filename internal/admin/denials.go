package admin

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/admin/peer"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// A run that knocks at the socket again and again gets one event in this time;
// the event counts the others.
const (
	denialPause = 10 * time.Second
	maxDenials  = 1024 // runs that are remembered
)

// denials paces the events of refused runs.
type denials struct {
	mu   sync.Mutex
	runs map[string]*denial
}

type denial struct {
	last    time.Time
	skipped uint64
}

func newDenials() *denials { return &denials{runs: map[string]*denial{}} }

// note counts a refusal of a run. It returns how many an event stands for now;
// 0 is no event yet.
func (d *denials) note(run string, now time.Time) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.runs[run]
	if !ok {
		d.forget(now)
		r = &denial{}
		d.runs[run] = r
	}
	r.skipped++
	if now.Sub(r.last) < denialPause {
		return 0
	}
	n := r.skipped
	r.last, r.skipped = now, 0
	return n
}

// forget drops runs that have been quiet, and all if there are too many.
func (d *denials) forget(now time.Time) {
	for id, r := range d.runs {
		if len(d.runs) >= maxDenials || now.Sub(r.last) > time.Hour {
			delete(d.runs, id)
		}
	}
}

// refuseRun records that a process of a run tried to use the API.
func (s *Server) refuseRun(r *http.Request, p *peer.Peer, runID string) {
	count := s.denials.note(runID, time.Now())
	if count == 0 {
		return
	}
	e := &audit.Event{
		Kind: audit.KindConnect, Activity: "refused", Component: "admin", Effect: decision.EffectDeny,
		Run: runID, Count: count, Process: &audit.Process{PID: p.PID, UID: p.UID},
		Reasons: []decision.Reason{{Rule: "admin.peer-in-run", Text: "A process of a run tried to use the admin API."}},
		Message: "A process of a run tried to use the admin API and was refused.",
	}
	if run, ok := s.opts.Runs.ByID(runID); ok {
		e.Agent, e.Owner, e.Mode, e.Actor, e.Person = run.Run.Agent, run.Owner, run.Mode, run.Actor.Account, run.Actor.Person
	}
	s.opts.Log.Warn("admin request from a run refused", "run", runID, "pid", p.PID, "uid", p.UID, "count", count)
	if err := s.opts.Audit.Append(context.WithoutCancel(r.Context()), e, decision.Appended); err != nil {
		s.opts.Log.Error("refusal of a run not recorded", "run", runID, "error", err)
	}
}
