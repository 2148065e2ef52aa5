package gateway

import (
	"context"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/workload"
)

// Activity says what an Event is about.
type Activity string

// The activities.
const (
	// ActivityOutcome ends what a decision began: how it went, and how much.
	ActivityOutcome Activity = "outcome"
	// ActivityRefused is a refusal before any decision: the connection or the
	// request was not what it has to be.
	ActivityRefused Activity = "refused"
	// ActivityUnattributed is a connection that belongs to no run.
	ActivityUnattributed Activity = "unattributed"
)

// Event is what the gateway reports besides decisions. It holds no header, no
// body and no credential. Host, method, path and SNI are what the workload
// sent, after their syntax was checked; whoever prints them escapes them.
type Event struct {
	Activity Activity
	Kind     decision.Kind // connect or http
	Time     time.Time
	Count    uint64 // how many occurrences this event stands for, at least 1

	CgroupID uint64
	Run      decision.Run
	Actor    decision.Actor
	Tool     string
	Action   string
	Risk     decision.Risk
	Target   decision.Target // Address is the upstream's, if one was dialled

	DecisionID string // correlation
	ApprovalID string
	Digest     string
	Reason     decision.Reason // of a refusal

	HTTP     *decision.HTTP
	Status   int           // of the upstream's response; 0 if there was none
	Error    string        // how it failed; "" if it did not
	Sent     int64         // bytes from the workload to the upstream
	Received int64         // bytes from the upstream to the workload
	Duration time.Duration // from the accept or the request's header to the end

	Injected bool // a credential was attached
	Stripped bool // the workload's own value of that header was removed
	Scrubbed bool // the credential was removed from response headers
}

// Events keeps events. An error means that the event is lost: it is logged and
// counted, because what it reports has happened already.
type Events interface {
	Append(ctx context.Context, e Event) error
}

// report appends an event and logs one that is lost.
func (g *Gateway) report(ctx context.Context, e Event) {
	if e.Time.IsZero() {
		e.Time = g.opts.Now()
	}
	e.Count = max(e.Count, 1)
	if e.Activity == ActivityRefused {
		g.count.refused.Add(1)
	}
	if err := g.opts.Events.Append(context.WithoutCancel(ctx), e); err != nil {
		g.count.lostEvents.Add(1)
		g.opts.Log.Error("gateway event lost", "activity", e.Activity, "run", e.Run.ID, "decision", e.DecisionID, "error", err)
	}
}

// about begins an event of a run.
func about(a Activity, k decision.Kind, run *workload.Run) Event {
	return Event{Activity: a, Kind: k, CgroupID: run.CgroupID, Run: run.Run, Actor: run.Actor}
}
