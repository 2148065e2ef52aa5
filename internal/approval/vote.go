package approval

import (
	"context"
	"fmt"
	"slices"

	"github.com/varvel/varvel/internal/decision"
)

// Approve records that by approves. The approval is granted when enough
// different people have approved it. It returns the approval as it is then, or
// an error that wraps ErrNotFound, ErrNotOpen or ErrNotAllowed and says why.
func (s *Store) Approve(ctx context.Context, id string, by Approver, reason string) (Approval, error) {
	return s.vote(ctx, id, by, reason, s.approve)
}

// Deny records that by denies, which is final. A granted approval can be denied
// until it is used. Errors are those of Approve.
func (s *Store) Deny(ctx context.Context, id string, by Approver, reason string) (Approval, error) {
	return s.vote(ctx, id, by, reason, s.deny)
}

// vote checks what both answers have in common, and commits what decide makes
// of the approval.
func (s *Store) vote(ctx context.Context, id string, by Approver, reason string, decide func(Approval, Vote, Approver) (EventKind, Approval, error)) (Approval, error) {
	if err := checkApprover(by, reason); err != nil {
		return Approval{}, err
	}
	if err := s.take(ctx); err != nil {
		return Approval{}, err
	}
	defer s.release()
	a, _, err := s.look(id)
	if err != nil {
		return Approval{}, err
	}
	if a.State.open() {
		if _, err := s.endIfOver(ctx, a); err != nil {
			return Approval{}, err
		}
		if a, _, err = s.look(id); err != nil {
			return Approval{}, err
		}
	}
	if !a.State.open() {
		return a, notOpen(a)
	}
	v := Vote{
		UID: by.UID, Name: clean(by.Name, maxName), Presence: by.Presence, PID: by.PID,
		PeerCheck: clean(by.PeerCheck, maxReason), Reason: clean(reason, maxReason), Time: timeNow(),
	}
	event, next, err := decide(a, v, by)
	if err != nil {
		return a, err
	}
	cast := next.Votes[len(next.Votes)-1]
	if err := s.commit(ctx, event, next, &cast); err != nil {
		return a, err
	}
	return s.Get(id)
}

func notOpen(a Approval) error {
	if a.Note != "" {
		return fmt.Errorf("%w: %s is %s: %s", ErrNotOpen, a.ID, a.State, a.Note)
	}
	return fmt.Errorf("%w: %s is %s", ErrNotOpen, a.ID, a.State)
}

func checkApprover(by Approver, reason string) error {
	switch {
	case by.PeerCheck == "":
		return fmt.Errorf("%w: there is no evidence that this process is in no run", ErrNotAllowed)
	case len(reason) > maxReason:
		return fmt.Errorf("%w: the reason is longer than %d bytes; shorten it", ErrNotAllowed, maxReason)
	}
	return nil
}

func (s *Store) approve(a Approval, v Vote, by Approver) (EventKind, Approval, error) {
	if a.State != Pending {
		return "", a, notOpen(a)
	}
	if err := mayApprove(a, by); err != nil {
		return "", a, err
	}
	v.Approve = true
	a.Votes = append(slices.Clone(a.Votes), v)
	if a.approvals() < a.Need.Quorum {
		return EventVoted, a, nil
	}
	a.State = Granted
	return EventGranted, a, nil
}

func (s *Store) deny(a Approval, v Vote, by Approver) (EventKind, Approval, error) {
	requester := a.Request.Actor.StartedBy
	if own := requester != nil && requester.UID == by.UID; !own {
		if err := inGroup(a, by); err != nil {
			return "", a, err
		}
	}
	a.Votes = append(slices.Clone(a.Votes), v)
	a.State = Denied
	return EventDenied, a, nil
}

// mayApprove says why by may not approve a. It knows no exceptions: root obeys
// it too.
func mayApprove(a Approval, by Approver) error {
	requester := a.Request.Actor.StartedBy
	if requester == nil {
		return fmt.Errorf("%w: it is not known who started the run, so nobody can be told apart from them", ErrNotAllowed)
	}
	own := requester.UID == by.UID
	switch {
	case a.Need.Kind == decision.FourEyes && own:
		return fmt.Errorf("%w: you started the run, and this needs somebody else", ErrNotAllowed)
	case a.Need.Kind == decision.Confirm && !own:
		return fmt.Errorf("%w: only who started the run may confirm this", ErrNotAllowed)
	case a.Need.Kind == decision.Confirm && by.Presence != PresenceTerminal:
		return fmt.Errorf("%w: to confirm, you must be at a terminal", ErrNotAllowed)
	case a.Need.Kind != decision.FourEyes && a.Need.Kind != decision.Confirm:
		return fmt.Errorf("%w: the kind of approval is unknown", ErrNotAllowed)
	case slices.ContainsFunc(a.Votes, func(v Vote) bool { return v.UID == by.UID }):
		return fmt.Errorf("%w: you have approved this already, and it needs %d different people", ErrNotAllowed, a.Need.Quorum)
	}
	if err := notExcluded(a, by); err != nil {
		return err
	}
	return inGroup(a, by)
}

// notExcluded checks the names of people and groups that may not approve.
func notExcluded(a Approval, by Approver) error {
	if len(a.Need.Exclude) == 0 {
		return nil
	}
	if by.Name == "" {
		return fmt.Errorf("%w: some people may not approve this, and your user name is not known", ErrNotAllowed)
	}
	for _, name := range a.Need.Exclude {
		if name == by.Name || slices.Contains(by.Groups, name) {
			return fmt.Errorf("%w: %q may not approve this", ErrNotAllowed, name)
		}
	}
	return nil
}

func inGroup(a Approval, by Approver) error {
	if len(a.Need.Groups) == 0 {
		return nil
	}
	for _, group := range a.Need.Groups {
		if slices.Contains(by.Groups, group) {
			return nil
		}
	}
	return fmt.Errorf("%w: you must be in one of the groups %q", ErrNotAllowed, a.Need.Groups)
}
