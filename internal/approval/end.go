package approval

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// retryDelay is how long Run waits after a transition could not be made.
const retryDelay = 5 * time.Second

// Settle records how the action ended that Ask granted. It is called once, also
// for an action that was granted but did not start.
func (s *Store) Settle(ctx context.Context, id string, o Outcome) error {
	// The action has happened; that its client is gone does not change it.
	ctx = context.WithoutCancel(ctx)
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	a, _, err := s.look(id)
	if err != nil {
		return err
	}
	if a.State != Claimed {
		return notOpen(a)
	}
	o.Error = clean(o.Error, maxReason)
	a.State, a.Outcome = Settled, &o
	return s.commit(ctx, EventSettled, a, nil)
}

// CancelRun cancels what is open of a run that has ended or was revoked; why is a
// sentence for people. What was started stays claimed until it is settled.
func (s *Store) CancelRun(ctx context.Context, run, why string) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	var failed []error
	for _, a := range s.all() {
		if a.Request.Run.ID == run && a.State.open() {
			failed = append(failed, s.cancel(ctx, a, why))
		}
	}
	return errors.Join(failed...)
}

// cancel ends an open approval. The caller has the turn.
func (s *Store) cancel(ctx context.Context, a Approval, why string) error {
	a.State, a.Note = Cancelled, why
	return s.commit(ctx, EventCancelled, a, nil)
}

// Run expires approvals when they are due, until ctx ends. An overdue approval
// cannot be approved or used before Run has come to it either.
func (s *Store) Run(ctx context.Context) error {
	for {
		wait := s.untilNext()
		if err := s.expire(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("approvals not expired, trying again", "error", err)
			wait = retryDelay
		} else if err == nil {
			wait = s.untilNext()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// nudge tells Run to look again when the next approval is due.
func (s *Store) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// untilNext returns how long it is until an open approval is due: an hour if
// there is none, when it is time to forget old ones.
func (s *Store) untilNext() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	next := time.Hour
	for _, e := range s.byID {
		if e.approval.State.open() {
			next = min(next, time.Until(e.approval.Expires))
		}
	}
	return max(next, 0)
}

// expire ends what is overdue and forgets what is old.
func (s *Store) expire(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.release()
	now := timeNow()
	var failed []error
	for _, a := range s.all() {
		if a.State.open() && !now.Before(a.Expires) {
			a.State = Expired
			failed = append(failed, s.commit(ctx, EventExpired, a, nil))
		}
	}
	s.prune(now)
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("expire approvals: %w", err)
	}
	return nil
}
