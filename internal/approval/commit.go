package approval

import (
	"context"
	"fmt"
	"time"
)

// commit makes one transition: it is recorded, then kept in the journal, then
// in force. The caller has the turn, and next differs from what is in force in
// what the transition changes.
func (s *Store) commit(ctx context.Context, event EventKind, next Approval, vote *Vote) error {
	// Who asked may be gone; a transition that has begun is finished.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer cancel()
	now := timeNow()
	next.Changed = now
	old, _, err := s.look(next.ID)
	if err != nil {
		old = Approval{}
	}
	change := Change{Event: event, From: old.State, Approval: next, Vote: vote, Time: now}
	if err := s.cfg.Events.Note(ctx, change); err != nil {
		return fmt.Errorf("approval %s: %s could not be recorded, so it does not happen: %w", next.ID, event, err)
	}
	err = s.journal.append(next, s.all)
	s.fault.Store(&err)
	if err != nil {
		s.void(ctx, change)
		return fmt.Errorf("approval %s: %s could not be kept, so it does not happen: %w", next.ID, event, err)
	}
	s.put(next)
	s.tell(old, next)
	return nil
}

// void records that a change did not take effect.
func (s *Store) void(ctx context.Context, c Change) {
	undone := c.Event
	c.Event = EventVoided
	c.Approval.Note = string(undone) + " did not take effect: the journal could not be written."
	if err := s.cfg.Events.Note(ctx, c); err != nil {
		s.cfg.Log.Error("voided transition not recorded", "approval", c.Approval.ID, "transition", string(undone), "error", err)
	}
}

// tell calls the hooks.
func (s *Store) tell(old, next Approval) {
	if s.cfg.Hooks.Resolved != nil && old.State == Pending && next.State != Pending {
		s.cfg.Hooks.Resolved(next.State, next.Changed.Sub(next.Created))
	}
	if s.cfg.Hooks.Open != nil && old.State.open() != next.State.open() {
		s.cfg.Hooks.Open(s.countOpen())
	}
}

func (s *Store) countOpen() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for _, e := range s.byID {
		if e.approval.State.open() {
			n++
		}
	}
	return n
}

// prune forgets what has ended, answers no question any more, and has been
// there for people to look at. The caller has the turn.
func (s *Store) prune(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, e := range s.byID {
		a := e.approval
		if a.State.open() || a.State == Claimed || a.answers(now) || now.Sub(a.Changed) < retention {
			continue
		}
		delete(s.byID, id)
		if s.byKey[a.key()] == e {
			delete(s.byKey, a.key())
		}
	}
}
