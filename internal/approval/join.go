package approval

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varvel/varvel/internal/decision"
)

// join returns the approval that answers the request, which is a new one if
// none does. If a new one may not be made, it says why instead.
func (s *Store) join(ctx context.Context, r decision.Request, v decision.Verdict) (id string, refused *decision.Resolution, err error) {
	k := keyOf(r, v.Revision)
	if id, ok := s.answering(k); ok {
		return id, nil, nil
	}
	if err := s.take(ctx); err != nil {
		return "", nil, err
	}
	defer s.release()
	if id, ok := s.answering(k); ok {
		return id, nil, nil
	}
	s.prune(timeNow())
	previous, err := s.supersede(ctx, r)
	if err != nil {
		return "", nil, err
	}
	if refused := s.refuse(r); refused != nil {
		return "", refused, nil
	}
	a, err := s.newApproval(r, v, previous)
	if err != nil {
		return "", nil, err
	}
	if err := s.commit(ctx, EventRequested, a, nil); err != nil {
		return "", nil, err
	}
	s.nudge()
	return a.ID, nil, nil
}

// answering returns the approval that answers a repeated question.
func (s *Store) answering(k key) (id string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.byKey[k]
	if e == nil || !e.approval.answers(timeNow()) {
		return "", false
	}
	return e.approval.ID, true
}

// supersede ends what is open of the same request under another policy, or
// another definition of the tool, or is overdue. It returns the id of the newest
// approval of the same request, or "". The caller has the turn.
func (s *Store) supersede(ctx context.Context, r decision.Request) (previous string, err error) {
	for _, a := range s.all() {
		b := a.Request
		if b.Run.ID != r.Run.ID || b.Digest != r.Digest || b.Tool != r.Tool || b.Action != r.Action {
			continue
		}
		previous = a.ID
		if !a.State.open() {
			continue
		}
		if !timeNow().Before(a.Expires) {
			a.State = Expired
			err = s.commit(ctx, EventExpired, a, nil)
		} else {
			err = s.cancel(ctx, a, "The policy or the tool's definition has changed since it was asked for.")
		}
		if err != nil {
			return "", err
		}
	}
	return previous, nil
}

// refuse says why there may be no new approval, or nil. The caller has the turn.
func (s *Store) refuse(r decision.Request) *decision.Resolution {
	if !s.cfg.Runs.Alive(r.Run.ID) {
		return refusal("approval.run-ended", "The run has ended, so nothing of it can be approved.")
	}
	openOfRun, keptOfRun, open := s.count(r.Run.ID)
	switch {
	case openOfRun >= s.cfg.MaxPerRun:
		return refusal("approval.too-many", fmt.Sprintf("%d actions of this run wait for people already. Repeat the request when one of them is resolved.", openOfRun))
	case keptOfRun >= s.cfg.MaxPerRun*keptPerOpen:
		return refusal("approval.too-many", fmt.Sprintf("This run has asked for %d approvals lately. Repeat the request when older ones have expired.", keptOfRun))
	case open >= s.cfg.MaxTotal:
		return refusal("approval.node-full", fmt.Sprintf("%d actions of this node wait for people already. Repeat the request when some of them are resolved.", open))
	}
	return nil
}

func refusal(rule, text string) *decision.Resolution {
	return &decision.Resolution{Status: decision.StatusDenied, Reason: decision.Reason{Rule: rule, Text: text}}
}

// count returns how many approvals of the run are open, how many of its
// approvals answer questions, and how many are open in all.
func (s *Store) count(run string) (openOfRun, keptOfRun, open int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := timeNow()
	for _, e := range s.byID {
		a := e.approval
		mine := a.Request.Run.ID == run
		if a.State.open() {
			open++
			if mine {
				openOfRun++
			}
		}
		if mine && a.answers(now) {
			keptOfRun++
		}
	}
	return openOfRun, keptOfRun, open
}

// newApproval makes a pending approval of r.
func (s *Store) newApproval(r decision.Request, v decision.Verdict, previous string) (Approval, error) {
	now := timeNow()
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return Approval{}, fmt.Errorf("make an approval id: %w", err)
	}
	request, cut := bound(r)
	sum := sha256.Sum256([]byte(request.Preview))
	return Approval{
		ID: "apr_" + id.String(), State: Pending,
		Request: request, Cut: cut, PreviewDigest: "sha256:" + hex.EncodeToString(sum[:]),
		Reasons: v.Reasons, Need: *v.Need, PolicyRevision: v.Revision, Previous: previous,
		Created: now, Expires: now.Add(s.lifetime(v.Need.Expires)),
	}, nil
}

func (s *Store) lifetime(asked time.Duration) time.Duration {
	if asked == 0 {
		return s.cfg.Expires
	}
	return min(asked, maxExpires)
}
