package decision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// ErrNotRecorded is returned, wrapped, when the recorder did not accept the
// event of a decision. The action must not happen.
var ErrNotRecorded = errors.New("decision not recorded")

// Evaluator answers what policy says about a request. An error means that
// there is no answer, and the Engine denies.
type Evaluator interface {
	Evaluate(ctx context.Context, r Request) (Verdict, error)
}

// Status is where the approval of a held action stands.
type Status string

// The states that Ask can report. StatusGranted means that this very call owns
// the one execution that was approved, durably.
const (
	StatusPending Status = "pending"
	StatusGranted Status = "granted"
	StatusDenied  Status = "denied"
	StatusExpired Status = "expired"
	// StatusUsed means that the approved action was started before; it is
	// never started again.
	StatusUsed Status = "used"
)

// Resolution is the approver's answer.
type Resolution struct {
	Status     Status
	ApprovalID string
	Expires    time.Time
	Reason     Reason
}

// Approver finds a person. Ask waits as long as the implementation's in-band
// limit and the context permit, then reports what is so; a pending answer is
// not an error. Repeating a request with the same run, digest, policy revision
// and tool revision joins the approval that exists.
//
// Abandon tells that an action which Ask granted will not be started after all,
// and why. The one execution is used up.
type Approver interface {
	Ask(ctx context.Context, r Request, v Verdict) (Resolution, error)
	Abandon(ctx context.Context, approvalID, why string) error
}

// Promise says how safely an event is kept before its action goes on.
type Promise int

// The promises, weaker first.
const (
	Appended Promise = iota // survives the daemon's death
	Durable                 // survives power loss
)

// Recorder keeps decisions. Record returns nil only after the event is kept
// with at least the promise p.
type Recorder interface {
	Record(ctx context.Context, r Request, d Decision, p Promise) error
}

// Engine judges actions. Its fields are set once, before use; it is safe for
// concurrent use if its parts are.
type Engine struct {
	Evaluator Evaluator
	Approver  Approver
	Recorder  Recorder
	NewID     func() string    // makes decision ids
	Now       func() time.Time // the clock
	Log       *slog.Logger
}

// Decide judges one action. It returns an allow only after the recorder has
// accepted the event with the promise that the action's risk needs. Every
// failure on the way is a deny; the error then says what failed, for the log.
func (e *Engine) Decide(ctx context.Context, r Request) (Decision, error) {
	r.ID, r.Time = e.NewID(), e.Now()
	verdict, evalErr := e.evaluate(ctx, r)
	d := Decision{
		ID: r.ID, Effect: verdict.Effect, Reasons: verdict.Reasons,
		Obligations: verdict.Obligations, Revision: verdict.Revision,
	}
	var askErr error
	switch {
	case d.Effect != EffectAllow && r.Run.Mode == ModeObserve:
		d.Would, d.Effect = d.Effect, EffectAllow
	case d.Effect == EffectHold:
		askErr = e.ask(ctx, r, verdict, &d)
	}
	if err := e.record(ctx, r, d); err != nil {
		return e.unrecorded(d), errors.Join(err, evalErr, askErr, e.abandon(ctx, d))
	}
	return d, errors.Join(evalErr, askErr)
}

// abandon gives back what a decision that could not be recorded had claimed.
func (e *Engine) abandon(ctx context.Context, d Decision) error {
	if !d.Allowed() || d.ApprovalID == "" {
		return nil
	}
	if err := e.Approver.Abandon(context.WithoutCancel(ctx), d.ApprovalID, "not started: its decision could not be recorded"); err != nil {
		return fmt.Errorf("abandon the approval: %w", err)
	}
	return nil
}

// evaluate asks the policy and turns everything that is not an answer into a
// deny.
func (e *Engine) evaluate(ctx context.Context, r Request) (Verdict, error) {
	v, err := e.Evaluator.Evaluate(ctx, r)
	switch {
	case err != nil:
		return denial("policy.error", "The policy gave no answer, so the action is denied."), fmt.Errorf("evaluate: %w", err)
	case v.Effect == EffectHold && r.Digest == "":
		return denial("policy.unbound", "The action would need approval, but there is no exact request to bind it to."), nil
	case v.Effect == EffectHold && v.Need == nil:
		return denial("policy.error", "The policy holds the action but does not say what approval it needs."), nil
	case v.Effect != EffectAllow && v.Effect != EffectDeny && v.Effect != EffectHold:
		return denial("policy.error", "The policy's answer is none of allow, deny and hold."), nil
	}
	return v, nil
}

// ask resolves a held action into d.
func (e *Engine) ask(ctx context.Context, r Request, v Verdict, d *Decision) error {
	res, err := e.Approver.Ask(ctx, r, v)
	if err != nil {
		d.Effect = EffectDeny
		d.Reasons = append(d.Reasons, Reason{"approval.error", "The approval could not be asked for, so the action is denied."})
		return fmt.Errorf("ask for approval: %w", err)
	}
	d.ApprovalID, d.Expires = res.ApprovalID, res.Expires
	if res.Reason.Rule != "" {
		d.Reasons = append(d.Reasons, res.Reason)
	}
	switch res.Status {
	case StatusGranted:
		d.Effect = EffectAllow
	case StatusPending:
		d.Effect = EffectHold
	default:
		d.Effect = EffectDeny
	}
	return nil
}

func (e *Engine) record(ctx context.Context, r Request, d Decision) error {
	// The caller may be gone; what was decided is recorded all the same.
	ctx = context.WithoutCancel(ctx)
	if err := e.Recorder.Record(ctx, r, d, PromiseFor(r, d)); err != nil {
		e.Log.Error("decision not recorded, action denied", "decision", r.ID, "run", r.Run.ID, "error", err)
		return fmt.Errorf("%w: %w", ErrNotRecorded, err)
	}
	return nil
}

// unrecorded is what becomes of a decision that could not be recorded. It does
// not matter what mode the agent has: what is not recorded does not happen.
func (e *Engine) unrecorded(d Decision) Decision {
	d.Effect, d.Would, d.Obligations = EffectDeny, "", nil
	d.Reasons = []Reason{{"audit.unavailable", "The decision could not be recorded, so the action does not happen."}}
	return d
}

// PromiseFor returns how safely the event of d must be kept: reads and denials
// are appended, everything that changes something is durable first.
func PromiseFor(r Request, d Decision) Promise {
	switch {
	case r.Kind == KindCredential && d.Allowed():
		return Durable
	case d.Effect == EffectDeny:
		return Appended
	case r.Kind == KindConnect || r.Risk == RiskRead:
		return Appended
	default:
		return Durable
	}
}

func denial(rule, text string) Verdict {
	return Verdict{Effect: EffectDeny, Reasons: []Reason{{rule, text}}}
}
