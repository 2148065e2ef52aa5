package admin

import (
	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/decision"
)

// revoke takes from a run all that it may reach. People may revoke what they
// have started; for the runs of others they have to be operators.
func (s *Server) revoke(r *request) (any, error) {
	run, err := s.findRun(r, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if !r.who.started(run.Actor.StartedBy) {
		if p := authorise(r.who, route{roles: operator}); p != nil {
			return nil, p
		}
	}
	var body api.Revoke
	if err := decodeBody(r, &body); err != nil {
		return nil, err
	}
	by := decision.LocalUser{UID: r.who.peer.UID, Name: userName(r.who.peer.UID)}
	return s.opts.Revoker.Revoke(r.Context(), run, by, body)
}
