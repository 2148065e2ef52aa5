package audit

import (
	"context"

	"github.com/varvel/varvel/internal/decision"
)

// Record keeps a decision. It makes *Log a decision.Recorder.
func (l *Log) Record(ctx context.Context, r decision.Request, d decision.Decision, p decision.Promise) error {
	e := FromDecision(r, d)
	return l.Append(ctx, &e, p)
}

var _ decision.Recorder = (*Log)(nil)

// FromDecision returns the event of a decision. What the request holds of the
// workload's own words is taken over as data.
func FromDecision(r decision.Request, d decision.Decision) Event {
	e := Event{
		Time: r.Time, Kind: Kind(r.Kind), Effect: d.Effect, Would: d.Would,
		Run: r.Run.ID, Agent: r.Run.Agent, Owner: r.Run.Owner, Mode: r.Run.Mode,
		Actor: r.Actor.Account, Person: r.Actor.Person,
		Tool: r.Tool, ToolRevision: r.ToolRevision, Action: r.Action, Risk: r.Risk,
		DecisionID: d.ID, ApprovalID: d.ApprovalID, Correlation: d.ApprovalID,
		Reasons: d.Reasons, Obligations: d.Obligations, PolicyRevision: d.Revision,
		Digest: r.Digest, Preview: r.Preview, Threshold: r.Threshold,
	}
	if e.Correlation == "" {
		e.Correlation = d.ID
	}
	if u := r.Actor.StartedBy; u != nil {
		e.StartedBy = &User{Name: u.Name, UID: u.UID}
	}
	if t := r.Target; t != (decision.Target{}) {
		e.Target = &Target{Address: t.Address, Name: t.Name, Port: t.Port, Protocol: t.Protocol}
	}
	if h := r.HTTP; h != nil {
		e.HTTP = &HTTP{Method: h.Method, Authority: h.Authority, Path: h.Path, Query: h.Query, RequestBytes: max(h.BodySize, 0)}
	}
	if c := r.Credential; c != nil {
		e.Credential = &Credential{Audience: c.Audience, LifetimeSeconds: int64(c.Lifetime.Seconds())}
	}
	if c := r.Confidence; c != nil {
		e.Confidence = &Confidence{Source: c.Source, Value: c.Value}
	}
	return e
}
