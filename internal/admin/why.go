package admin

import (
	"net/http"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/explain"
)

func (s *Server) why(r *request) (any, error) {
	run, err := s.findRun(r, r.query.Get("run"))
	if err != nil {
		return nil, err
	}
	to, err := explain.ParseDestination(r.query.Get("dest"))
	if err != nil {
		return nil, badRequest("The destination cannot be read: " + err.Error() + ".")
	}
	return s.opts.Explainer.Explain(run, to), nil
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
