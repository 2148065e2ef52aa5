package audit

import (
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Filter selects events. An empty field selects all; every field that is set
// must match.
type Filter struct {
	Run        string
	Agent      string
	Actor      string // the machine account
	Kind       Kind
	Effect     decision.Effect
	DecisionID string
	ApprovalID string
	Since      time.Time // this moment or later
	Until      time.Time // before this moment
	After      uint64    // only sequence numbers greater than this

	// Limit is how many events to return at most; 0 is no limit.
	Limit int
	// Newest takes the last Limit events instead of the first. They still come
	// oldest first.
	Newest bool
}

// Match reports whether the filter selects e, apart from Limit.
func (f Filter) Match(e *Event) bool {
	return is(f.Run, e.Run) && is(f.Agent, e.Agent) && is(f.Actor, e.Actor) &&
		is(f.Kind, e.Kind) && is(f.Effect, e.Effect) &&
		is(f.DecisionID, e.DecisionID) && is(f.ApprovalID, e.ApprovalID) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until)) &&
		e.Seq > f.After
}

// overlaps reports whether a segment with events of these times can hold one
// that the filter selects.
func (f Filter) overlaps(t times) bool {
	return (f.Since.IsZero() || !t.until.Before(f.Since)) && (f.Until.IsZero() || t.since.Before(f.Until))
}

func is[T ~string](want, have T) bool { return want == "" || want == have }
