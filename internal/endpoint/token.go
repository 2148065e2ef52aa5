package endpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway/problem"
	"github.com/varvel/varvel/internal/workload"
)

// tokenReply has the members of an OAuth 2.0 token response (RFC 6749 section
// 5.1), and the audience.
type tokenReply struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"` // whole seconds, rounded down
	Audience    string `json:"audience"`
}

// token serves GET /v1/token?tool=NAME.
func (e *Endpoint) token(w http.ResponseWriter, r *http.Request, run *workload.Run) {
	name, ok := onlyParam(r, "tool")
	if !ok || name == "" {
		write(w, denial{http.StatusBadRequest, "query", "The query must be tool=NAME and nothing else.", ""})
		return
	}
	t, ok := run.Tool(name)
	if !ok {
		e.refuse(w, r, run, denial{
			http.StatusForbidden, "unknown-tool", fmt.Sprintf("The agent has no tool of the name %.64q.", name),
			"GET /v1/whoami lists the agent's tools.",
		})
		return
	}
	if t.Credential != nil && t.Credential.Attach != nil {
		e.refuse(w, r, run, denial{
			http.StatusForbidden, "attached", fmt.Sprintf("The gateway puts the token of tool %q on its requests; programs do not get it.", name),
			"Send the request without a token.",
		})
		return
	}
	lease, err := e.opts.Tokens.Token(r.Context(), run, t)
	if err != nil {
		e.tokenFailed(w, r, run, name, err)
		return
	}
	e.reply(w, tokenReply{
		AccessToken: lease.Token.Reveal(), TokenType: "Bearer", Audience: lease.Audience,
		ExpiresIn: int(lease.Expires.Sub(e.opts.Now()) / time.Second),
	})
}

// tokenFailed explains why there is no token. Error texts of minters stay in
// the log: they are for operators.
func (e *Endpoint) tokenFailed(w http.ResponseWriter, r *http.Request, run *workload.Run, name string, err error) {
	refused := new(broker.Refused)
	switch {
	case errors.As(err, &refused):
		e.tokenRefused(w, name, refused.Decision)
	case errors.Is(err, broker.ErrNoCredential):
		e.refuse(w, r, run, denial{
			http.StatusForbidden, "no-credential", fmt.Sprintf("Tool %q has no credential.", name),
			"Use the tool without one, or ask the operator.",
		})
	case errors.Is(err, broker.ErrRevoked):
		e.refuse(w, r, run, denial{http.StatusForbidden, "revoked", "The run was revoked and gets no more tokens.", ""})
	default:
		e.opts.Log.Warn("token not served", "run", run.ID, "tool", name, "error", err)
		w.Header().Set("Retry-After", "1")
		problem.Write(w, problem.Details{
			Type: problem.TypeFor("unavailable"), Status: http.StatusServiceUnavailable, Reason: "unavailable", Tool: name,
			Detail: "The token could not be made just now.", Retry: true, Help: "Try again in a second.",
		})
	}
}

// tokenRefused explains a decision.
func (e *Endpoint) tokenRefused(w http.ResponseWriter, name string, d decision.Decision) {
	p := problem.Details{
		Type: problem.TypeFor("denied"), Status: http.StatusForbidden, Title: "The token is refused", Tool: name,
		Decision: d.ID, Approval: d.ApprovalID, Reason: d.Rule(),
		Help: "Asking again does not help. An operator can change the policy.",
	}
	if n := len(d.Reasons); n > 0 {
		p.Detail = d.Reasons[n-1].Text
	}
	if d.Effect == decision.EffectHold {
		p.Type, p.Retry = problem.TypeFor("approval-pending"), true
		p.Help = "The token waits for approval. Ask again once it is approved."
		w.Header().Set("Varvel-Approval", d.ApprovalID)
		w.Header().Set("Retry-After", "15")
	}
	problem.Write(w, p)
}

// reply answers in JSON that nobody may keep (RFC 6749 section 5.1).
func (e *Endpoint) reply(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		e.opts.Log.Error("endpoint reply not encoded", "error", err)
		write(w, denial{http.StatusInternalServerError, "internal", "The reply could not be written.", ""})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append(body, '\n')) // the client is gone: nothing to do
}
