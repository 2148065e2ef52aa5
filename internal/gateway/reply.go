package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway/problem"
)

// retryAfter is when a held request is worth another try: a person has to see
// it first.
const retryAfter = 15 * time.Second

// refuse answers and reports a request that is not judged. The connection is
// closed: what follows on it is not trusted either.
func (x *exchange) refuse(r *refusal) {
	d := problem.Details{
		Type: problem.TypeFor(r.reason), Status: r.status, Title: "The gateway refused the request",
		Detail: r.detail, Reason: r.reason, Help: "Change the request; the same one is always refused.",
	}
	e := about(ActivityRefused, decision.KindHTTP, x.run)
	e.Target = decision.Target{Name: x.name.Host, Port: x.s.dst.Port(), Protocol: "tcp"}
	e.Reason, e.Status = decision.Reason{Rule: r.reason, Text: r.detail}, r.status
	e.Stripped = x.stripped
	if x.tool != nil {
		d.Tool, e.Tool = x.tool.Name, x.tool.Name
		d.Actions = x.actions()
	}
	x.w.Header().Set("Connection", "close")
	problem.Write(x.w, d)
	x.g.report(x.r.Context(), e)
}

// denied answers a request that was judged and must not happen.
func (x *exchange) denied() {
	d := x.problem()
	if x.decision.Effect == decision.EffectHold {
		x.held(&d)
	} else if fault := lastReason(x.decision).Rule; passes(fault) {
		d.Status, d.Retry, d.Reason = http.StatusServiceUnavailable, true, fault
		d.Help = "This is a fault of the node, not of the request. Tell the operator, and try again later."
	}
	if x.decision.Effect == decision.EffectDeny && x.decision.ApprovalID != "" {
		d.Retry = false // the approval is used up, denied or expired
		d.Help = "What became of the approval stands for exactly this request. Do not repeat it; ask the approver if it has to happen once more."
	}
	problem.Write(x.w, d)
	e := x.outcome()
	e.Status, e.Duration = d.Status, x.g.opts.Now().Sub(x.start)
	e.Reason = decision.Reason{Rule: d.Reason, Text: d.Detail}
	x.g.report(x.r.Context(), e)
}

// problem explains the decision.
func (x *exchange) problem() problem.Details {
	d := problem.Details{
		Type: problem.TypeFor("denied"), Status: http.StatusForbidden, Title: "The action is denied",
		Tool: x.tool.Name, Actions: x.actions(), Decision: x.decision.ID, Approval: x.decision.ApprovalID,
		Reason: x.decision.Rule(), Detail: lastReason(x.decision).Text,
		Help: "The same request is denied again. An operator can change the policy or the tool; GET http://169.254.170.2/v1/why tells more.",
	}
	if x.action.Name == "" {
		d.Help = fmt.Sprintf("No action of tool %q matches %s %.200s. Use one of the available actions, or ask the operator to add one.",
			x.tool.Name, x.target.method, x.target.path)
	}
	return d
}

// held explains how to wait for a person.
func (x *exchange) held(d *problem.Details) {
	d.Type, d.Title, d.Retry = problem.TypeFor("approval-pending"), "The action waits for approval", true
	d.Help = "Send exactly the same request again once it is approved; it is then carried out once. A request that differs needs its own approval."
	if !x.decision.Expires.IsZero() {
		d.Expires = x.decision.Expires.UTC().Format(time.RFC3339)
	}
	x.w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	x.w.Header().Set("Varvel-Approval", x.decision.ApprovalID)
}

// passes reports whether a denial comes from a fault that may pass.
func passes(rule string) bool {
	switch rule {
	case "audit.unavailable", "approval.error", "policy.error":
		return true
	}
	return false
}

// failed answers an allowed request that did not get a response. sent says
// whether any of it may have reached the upstream.
func (x *exchange) failed(status int, reason, detail string, sent bool) {
	d := problem.Details{
		Type: problem.TypeFor(reason), Status: status, Title: "The request failed after it was allowed",
		Detail: detail, Reason: reason, Tool: x.tool.Name, Decision: x.decision.ID, Approval: x.decision.ApprovalID,
		Retry: !x.approved() && !(sent && x.bound()),
	}
	switch {
	case x.approved() && sent:
		d.Help = "The approval is used up, and nothing is sent again by itself. Find out at the upstream whether the action happened before you ask for it again."
	case x.approved():
		d.Help = "The approval is used up although nothing was sent. Ask the approver for a new one."
	case sent && x.bound():
		d.Help = "Find out at the upstream whether the action happened before you send the request again."
	default:
		d.Help = "The request may be sent again."
	}
	problem.Write(x.w, d)
}

// actions are the names of what the tool can do, with their methods and paths.
func (x *exchange) actions() []string {
	var all []string
	for _, a := range x.tool.Actions {
		all = append(all, fmt.Sprintf("%s: %v %s (%s)", a.Name, a.HTTP.Methods, a.HTTP.Path, a.Risk))
	}
	return all
}

// outcome begins the event that ends this request.
func (x *exchange) outcome() Event {
	e := outcomeOf(x.request, x.decision, x.run)
	e.Stripped = x.stripped
	return e
}
