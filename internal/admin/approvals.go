package admin

import (
	"fmt"
	"net/http"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/decision"
)

func (s *Server) approvals(r *request) (any, error) {
	list := []approval.Approval{}
	f := approval.Filter{Run: r.query.Get("run"), State: approval.State(r.query.Get("state"))}
	for _, a := range s.opts.Approvals.List(f) {
		if r.who.sees(a.Request.Actor.StartedBy) {
			list = append(list, a)
		}
	}
	return list, nil
}

func (s *Server) approval(r *request) (any, error) { return s.findApproval(r) }

// findApproval returns the approval of the path if the peer may see it. To
// others it does not exist.
func (s *Server) findApproval(r *request) (approval.Approval, error) {
	a, err := s.opts.Approvals.Get(r.PathValue("id"))
	if err == nil && !r.who.sees(a.Request.Actor.StartedBy) {
		return approval.Approval{}, fmt.Errorf("%w: %.60q; list them with: varvel approvals", approval.ErrNotFound, r.PathValue("id"))
	}
	return a, err
}

func (s *Server) approve(r *request) (any, error) {
	a, by, v, err := s.vote(r)
	if err != nil {
		return nil, err
	}
	if v.Preview != a.PreviewDigest {
		return nil, problem(http.StatusConflict, api.CodeStale, "preview_digest is not that of this approval, so it is not what was shown.",
			"Look at the approval again and send its preview_digest.")
	}
	if own := r.who.started(a.Request.Actor.StartedBy) && a.Need.Kind == decision.Confirm; !own {
		if p := authorise(r.who, route{roles: approver}); p != nil {
			return nil, p
		}
	}
	return s.opts.Voter.Approve(r.Context(), a.ID, by, v.Reason)
}

func (s *Server) deny(r *request) (any, error) {
	a, by, v, err := s.vote(r)
	if err != nil {
		return nil, err
	}
	if !r.who.started(a.Request.Actor.StartedBy) {
		if p := authorise(r.who, route{roles: approver}); p != nil {
			return nil, p
		}
	}
	return s.opts.Voter.Deny(r.Context(), a.ID, by, v.Reason)
}

// vote reads what both answers have in common. Who they come from is what the
// kernel says; only reason and presence are what the person sent.
func (s *Server) vote(r *request) (approval.Approval, approval.Approver, api.Vote, error) {
	var v api.Vote
	a, err := s.findApproval(r)
	if err == nil {
		err = decodeBody(r, &v)
	}
	if err == nil {
		err = checkPresence(r.who, v.Presence)
	}
	if err != nil {
		return approval.Approval{}, approval.Approver{}, v, err
	}
	return a, r.who.approver(approval.Presence(v.Presence)), v, nil
}

// checkPresence refuses a claim that cannot be true: a process without a
// controlling terminal has nobody at one.
func checkPresence(w who, presence string) error {
	switch presence {
	case "":
		return nil
	case api.PresenceTerminal:
	default:
		return badRequest(`presence must be "terminal" or absent.`)
	}
	has, err := w.peer.HasTerminal()
	if err != nil {
		return fmt.Errorf("look for the peer's terminal: %w", err)
	}
	if !has {
		return problem(http.StatusForbidden, api.CodeNotAllowed, "Nobody can be present at a terminal: the process that asks has none.",
			"Run `varvel approve` in an interactive terminal.")
	}
	return nil
}
