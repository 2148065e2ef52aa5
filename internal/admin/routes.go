package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/varvel/varvel/internal/admin/api"
)

// request is a request of somebody who may make it.
type request struct {
	*http.Request
	who   who
	query url.Values // checked: known names, each once
}

// route is one thing that can be asked for.
type route struct {
	pattern string // of http.ServeMux
	params  []string
	roles   roles // one of them is enough
	// own also lets people ask who have no role, about what they have started;
	// the handler sees to it.
	own    bool
	serve  func(r *request) (any, error)           // answers with JSON
	stream func(w http.ResponseWriter, r *request) // answers by itself
}

func (s *Server) routes() []route {
	return []route{
		{pattern: "GET /v1/status", roles: every, serve: s.status},
		{pattern: "GET /v1/runs", roles: every, own: true, serve: s.runs},
		{pattern: "GET /v1/runs/{id}", roles: every, own: true, serve: s.run},
		{pattern: "POST /v1/runs/{id}/revoke", roles: operator, own: true, serve: s.revoke},
		{pattern: "GET /v1/agents", roles: every, serve: s.agents},
		{pattern: "GET /v1/tools", roles: every, serve: s.tools},
		{pattern: "GET /v1/leases", roles: every, serve: s.leases},
		{pattern: "GET /v1/why", params: []string{"run", "dest", "from", "protocol"}, roles: every, own: true, serve: s.why},
		{pattern: "GET /v1/approvals", params: []string{"run", "state"}, roles: every, own: true, serve: s.approvals},
		{pattern: "GET /v1/approvals/{id}", roles: every, own: true, serve: s.approval},
		{pattern: "POST /v1/approvals/{id}/approve", roles: approver, own: true, serve: s.approve},
		{pattern: "POST /v1/approvals/{id}/deny", roles: approver, own: true, serve: s.deny},
		{pattern: "GET /v1/audit", params: auditParams(), roles: auditor, stream: s.audit},
		{pattern: "POST /v1/reload", roles: operator, serve: s.reload},
	}
}

// handle puts the gate before a route.
func (s *Server) handle(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		req := &request{Request: hr}
		var p *api.Problem
		if req.who, p = s.identify(hr); p == nil {
			p = authorise(req.who, r)
		}
		if p != nil {
			s.refuse(w, hr, p)
			return
		}
		var err error
		if req.query, err = strictQuery(hr.URL, r.params); err != nil {
			s.fail(w, hr, err)
			return
		}
		if r.stream != nil {
			r.stream(w, req)
			return
		}
		hr.Body = http.MaxBytesReader(w, hr.Body, maxBody)
		answer, err := r.serve(req)
		if err != nil {
			s.fail(w, hr, err)
			return
		}
		s.answer(w, hr, answer)
	})
}

// strictQuery refuses parameters that the route does not know, and repeated ones.
func strictQuery(u *url.URL, known []string) (url.Values, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, badRequest("The query of the address is malformed.")
	}
	for name, values := range q {
		switch {
		case !slices.Contains(known, name):
			return nil, badRequest(fmt.Sprintf("The parameter %.40q is not known here.", name))
		case len(values) != 1:
			return nil, badRequest(fmt.Sprintf("The parameter %.40q is there more than once.", name))
		}
	}
	return q, nil
}

// noRoute answers what no route does.
func noRoute(r *request) (any, error) {
	return nil, problem(http.StatusNotFound, api.CodeNotFound,
		fmt.Sprintf("There is no %.10s %.80s in this version of the API.", r.Method, r.URL.Path), "")
}
