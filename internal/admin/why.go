package admin

import (
	"net/http"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/explain"
	"github.com/varvel/varvel/internal/workload"
)

func (s *Server) why(r *request) (any, error) {
	run, ended, err := s.findAnyRun(r, r.query.Get("run"))
	if err != nil {
		return nil, err
	}
	why, err := s.explain(run, r)
	if err != nil {
		return nil, err
	}
	if ended {
		why.Notes = append(why.Notes, "The run has ended; this is what its agent's configuration says now.")
	}
	return why, nil
}

// explain says what becomes of connections to a destination, or, with from, of who
// comes to a port of the run.
func (s *Server) explain(run *workload.Run, r *request) (api.Why, error) {
	if from := r.query.Get("from"); from != "" {
		in, err := explain.ParsePeer(from, r.query.Get("dest"), r.query.Get("protocol"))
		if err != nil {
			return api.Why{}, badRequest("The peer or the port cannot be read: " + err.Error() + ".")
		}
		return s.opts.Explainer.ExplainInbound(run, in), nil
	}
	to, err := explain.ParseDestination(r.query.Get("dest"))
	if err != nil {
		return api.Why{}, badRequest("The destination cannot be read: " + err.Error() + ".")
	}
	return s.opts.Explainer.Explain(run, to), nil
}

// findAnyRun is findRun, and finds a run that has ended lately, too: refusals are
// asked about when the command is over.
func (s *Server) findAnyRun(r *request, id string) (run *workload.Run, ended bool, err error) {
	run, err = s.findRun(r, id)
	if err == nil || s.opts.Ended == nil {
		return run, false, err
	}
	gone, ok := s.opts.Ended(id)
	if !ok || !r.who.sees(gone.Actor.StartedBy) {
		return nil, false, err
	}
	return gone, true, nil
}

func (s *Server) reload(r *request) (any, error) {
	var none struct{}
	if err := decodeBody(r, &none); err != nil {
		return nil, err
	}
	s.opts.Log.Info("reload requested", "uid", r.who.peer.UID, "pid", r.who.peer.PID)
	answer, err := s.opts.Reloader.Reload(r.Context())
	if err != nil && known(err) == nil {
		return nil, problem(http.StatusUnprocessableEntity, api.CodeInvalid, "Nothing has changed: "+err.Error(), "Correct it, then reload again.")
	}
	return answer, err
}
