package approval

import (
	"context"
	"errors"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Ask finds or makes the approval of r and waits for people, at most the
// configured time and as long as ctx. decision.StatusGranted is returned to one
// call only, after its claim is durable; the caller then starts the action and
// calls Settle. A pending answer is not an error: the same request asks again.
func (s *Store) Ask(ctx context.Context, r decision.Request, v decision.Verdict) (decision.Resolution, error) {
	if err := checkQuestion(r, v); err != nil {
		return decision.Resolution{}, err
	}
	id, refused, err := s.join(ctx, r, v)
	switch {
	case err != nil:
		return decision.Resolution{}, err
	case refused != nil:
		return *refused, nil
	}
	return s.await(ctx, id)
}

// checkQuestion refuses what could not be bound, or not be answered.
func checkQuestion(r decision.Request, v decision.Verdict) error {
	switch {
	case r.Run.ID == "" || r.Digest == "":
		return errors.New("approval needs the run and the digest of the exact request")
	case v.Revision == "":
		return errors.New("approval needs the revision of the policy that holds the action")
	case v.Need == nil:
		return errors.New("approval needs to know who may approve")
	case v.Need.Kind != decision.FourEyes && v.Need.Kind != decision.Confirm:
		return errors.New("approval is of no known kind")
	case v.Need.Quorum < 1 || v.Need.Kind == decision.Confirm && v.Need.Quorum != 1:
		return errors.New("approval needs at least one person, and a confirmation exactly one")
	case v.Need.Expires < 0:
		return errors.New("approval would expire before it was asked for")
	}
	return nil
}

// await waits until the approval is resolved, or the wait is over.
func (s *Store) await(ctx context.Context, id string) (decision.Resolution, error) {
	enough := time.NewTimer(s.cfg.InBand)
	defer enough.Stop()
	for {
		a, changed, err := s.look(id)
		if err != nil {
			return decision.Resolution{}, err
		}
		left := time.Until(a.Expires)
		switch {
		case a.State == Pending && left > 0:
			if !waitFor(ctx, changed, enough.C, left) {
				return answer(a), nil
			}
		case a.State.open() && ctx.Err() == nil:
			won, err := s.advance(ctx, id)
			if err != nil {
				return decision.Resolution{}, err
			}
			if won {
				return granted(a), nil
			}
		default:
			return answer(a), nil
		}
	}
}

// waitFor reports whether it is worth looking again: something changed, or the
// approval is due to expire.
func waitFor(ctx context.Context, changed <-chan struct{}, enough <-chan time.Time, left time.Duration) bool {
	due := time.NewTimer(left)
	defer due.Stop()
	select {
	case <-changed:
		return true
	case <-due.C:
		return true
	case <-enough:
		return false
	case <-ctx.Done():
		return false
	}
}

// advance claims a granted approval, or ends one that is overdue or that policy
// and tool no longer fit. It reports whether this call has the claim.
func (s *Store) advance(ctx context.Context, id string) (won bool, err error) {
	if err := s.take(ctx); err != nil {
		if ctx.Err() != nil {
			return false, nil // the caller looks again, and sees that it is to stop
		}
		return false, err
	}
	defer s.release()
	a, _, err := s.look(id)
	if err != nil || !a.State.open() || ctx.Err() != nil {
		return false, err
	}
	if ended, err := s.endIfOver(ctx, a); ended || err != nil || a.State == Pending {
		return false, err
	}
	a.State, a.Claimed = Claimed, timeNow()
	err = s.commit(ctx, EventClaimed, a, nil)
	return err == nil, err
}

// endIfOver expires or cancels an open approval that cannot be used any more.
// The caller has the turn.
func (s *Store) endIfOver(ctx context.Context, a Approval) (ended bool, err error) {
	if !timeNow().Before(a.Expires) {
		a.State = Expired
		return true, s.commit(ctx, EventExpired, a, nil)
	}
	if why := s.stale(a); why != "" {
		return true, s.cancel(ctx, a, why)
	}
	return false, nil
}

// stale says why what was asked is not what would run now, or "".
func (s *Store) stale(a Approval) string {
	r := a.Request
	if !s.cfg.Runs.Alive(r.Run.ID) {
		return "The run has ended."
	}
	policyRevision, toolRevision := s.cfg.Runs.Current(r.Run.ID, r.Tool)
	switch {
	case policyRevision != a.PolicyRevision:
		return "The policy has changed since it was asked for."
	case r.Tool != "" && toolRevision != r.ToolRevision:
		return "The tool's definition has changed since it was asked for."
	}
	return ""
}

// answer is what an approval says to who does not have its claim.
func answer(a Approval) decision.Resolution {
	res := decision.Resolution{ApprovalID: a.ID, Expires: a.Expires}
	switch a.State {
	case Pending, Granted:
		res.Status = decision.StatusPending
		res.Reason = decision.Reason{Rule: "approval.pending", Text: "A person must approve this. Repeat the same request after that, before the approval expires."}
	case Denied:
		res.Status = decision.StatusDenied
		res.Reason = decision.Reason{Rule: "approval.denied", Text: "A person denied this. It can be asked for again when this approval has expired."}
	case Cancelled:
		res.Status = decision.StatusExpired
		res.Reason = decision.Reason{Rule: "approval.cancelled", Text: a.Note + " Repeat the request to ask again."}
	case Expired:
		res.Status = decision.StatusExpired
		res.Reason = decision.Reason{Rule: "approval.expired", Text: "Nobody approved this in time. Repeat the request to ask again."}
	case OutcomeUnknown:
		res.Status = decision.StatusUsed
		res.Reason = decision.Reason{Rule: "approval.outcome-unknown", Text: "This was approved and started, and its outcome is not known. It is not started a second time; look at the other side whether it happened."}
	default:
		res.Status = decision.StatusUsed
		res.Reason = decision.Reason{Rule: "approval.used", Text: "This was approved and started once. It is not started a second time."}
	}
	return res
}

// granted is the answer to the one call that has the claim.
func granted(a Approval) decision.Resolution {
	return decision.Resolution{
		Status: decision.StatusGranted, ApprovalID: a.ID, Expires: a.Expires,
		Reason: decision.Reason{Rule: "approval.granted", Text: "A person approved exactly this request."},
	}
}
