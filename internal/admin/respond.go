package admin

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/config"
)

func problem(status int, code, detail, hint string) *api.Problem {
	return &api.Problem{
		Type: "urn:varvel:problem:" + code, Title: http.StatusText(status),
		Status: status, Code: code, Detail: detail, Hint: hint,
	}
}

func badRequest(detail string) *api.Problem {
	return problem(http.StatusBadRequest, api.CodeBadRequest, detail, "")
}

// answer writes v as JSON.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any) {
	s.write(w, r, http.StatusOK, "application/json", v)
}

// refuse writes a problem and counts it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	if s.opts.Refused != nil {
		s.opts.Refused(p.Code)
	}
	s.write(w, r, p.Status, api.ContentTypeProblem, p)
}

// fail turns an error into a problem. What it does not know stays in the log.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := known(err)
	if p == nil {
		s.opts.Log.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		p = problem(http.StatusInternalServerError, api.CodeInternal, "The daemon could not do it.", "The reason is in the daemon's log.")
	}
	s.refuse(w, r, p)
}

// known returns the problem that an error stands for, or nil.
func known(err error) *api.Problem {
	var p *api.Problem
	var list *config.Problems
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, approval.ErrNotFound):
		return problem(http.StatusNotFound, api.CodeNotFound, err.Error(), "")
	case errors.Is(err, approval.ErrNotOpen):
		return problem(http.StatusConflict, api.CodeNotOpen, err.Error(), "")
	case errors.Is(err, approval.ErrNotAllowed):
		return problem(http.StatusForbidden, api.CodeNotAllowed, err.Error(), "")
	case errors.As(err, &list):
		p = problem(http.StatusUnprocessableEntity, api.CodeInvalid, "The configuration on disk is not valid, so nothing has changed.", "Correct what is named, then reload again.")
		p.Problems = *list
		return p
	case errors.As(err, &size):
		return problem(http.StatusRequestEntityTooLarge, api.CodeBadRequest, "The body is too large.", "")
	}
	return nil
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, kind string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.opts.Log.Error("admin answer not encoded", "path", r.URL.Path, "error", err)
		http.Error(w, "the answer could not be encoded", http.StatusInternalServerError)
		return
	}
	extend(w)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.opts.Log.Debug("admin answer not delivered", "path", r.URL.Path, "error", err)
	}
}
