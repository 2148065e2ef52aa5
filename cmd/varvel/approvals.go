package main

import (
	"fmt"
	"strings"

	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/decision"
)

type approvalsCmd struct {
	ID    string `arg:"" optional:"" predictor:"approval" help:"Show this approval only."`
	OfRun string `name:"run" placeholder:"ID" predictor:"run" help:"Only those of this run."`
	State string `placeholder:"STATE" help:"Only those in this state." enum:",pending,granted,claimed,settled,denied,expired,cancelled,outcome-unknown" default:""`
	All   bool   `help:"Also those that wait no more."`
}

// Help is shown below the flags.
func (approvalsCmd) Help() string {
	return `Without flags it lists what waits for a person now.

Examples:
  varvel approvals
  varvel approvals --all --run run_01J9ZK3V8Q2M4N6P8R0S2T4V6X
  varvel approvals apr_01J9ZK4B1D3F5H7K9M1P3R5T7V`
}

// Run lists the approvals, or shows one.
func (c approvalsCmd) Run(e *env) error {
	if c.ID != "" {
		a, err := e.client().Approval(e.ctx, c.ID)
		return show(e, a, err, func() { e.printApproval(a) })
	}
	state := c.State
	if state == "" && !c.All {
		state = string(approval.Pending)
	}
	list, err := e.client().Approvals(e.ctx, c.OfRun, state)
	return show(e, list, err, func() {
		var rows [][]string
		for _, a := range list {
			rows = append(rows, []string{a.ID, string(a.State), a.Request.Run.Agent, a.Request.Tool, a.Request.Action,
				string(a.Request.Risk), string(a.Need.Kind), e.tui.when(a.Created), e.tui.when(a.Expires)})
		}
		e.tui.table("Nothing waits for approval.", []string{"APPROVAL", "STATE", "AGENT", "TOOL", "ACTION", "RISK", "NEEDS", "ASKED", "EXPIRES"}, rows)
	})
}

// printApproval shows everything that a person needs to decide.
func (e *env) printApproval(a approval.Approval) {
	r := a.Request
	e.tui.fields(
		"approval", a.ID, "state", string(a.State), "agent", r.Run.Agent, "owner", r.Run.Owner, "run", r.Run.ID,
		"account", r.Actor.Account, "asked by", person(r.Actor.StartedBy), "on behalf of", onBehalf(r.Actor.Person),
		"tool", r.Tool, "action", r.Action, "risk", string(r.Risk), "target", target(r.Target), "request", httpLine(r.HTTP),
		"digest", r.Digest, "policy", a.PolicyRevision, "tool revision", r.ToolRevision, "needs", needs(a),
		"asked", e.tui.when(a.Created), "expires", e.tui.when(a.Expires), "note", a.Note, "outcome", outcome(a.Outcome),
	)
	for _, reason := range a.Reasons {
		e.tui.line("because  %s (%s)", reason.Text, reason.Rule)
	}
	for _, v := range a.Votes {
		e.tui.line("vote     %s", e.vote(v))
	}
	if r.Preview == "" {
		return
	}
	e.tui.line("what would run:")
	e.tui.block(r.Preview)
	if a.Cut {
		e.tui.line("(cut; the digest is of the whole request)")
	}
}

func (e *env) vote(v approval.Vote) string {
	answer := "denied"
	if v.Approve {
		answer = "approved"
	}
	s := fmt.Sprintf("%s by %s, %s", answer, person(&decision.LocalUser{UID: v.UID, Name: v.Name}), e.tui.when(v.Time))
	if v.Reason != "" {
		s += ": " + v.Reason
	}
	return s
}

func onBehalf(p *decision.Person) string {
	if p == nil {
		return ""
	}
	return p.Subject + " at " + p.Issuer
}

func target(t decision.Target) string {
	host := t.Name
	if host == "" && t.Address.IsValid() {
		host = t.Address.String()
	}
	if host == "" || t.Port == 0 {
		return host
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, t.Port)
}

func httpLine(h *decision.HTTP) string {
	if h == nil {
		return ""
	}
	path := h.Path
	if h.Query != "" {
		path += "?" + h.Query
	}
	return fmt.Sprintf("%s %s%s", h.Method, h.Authority, path)
}

func needs(a approval.Approval) string {
	n := a.Need
	var s string
	switch n.Kind {
	case decision.Confirm:
		return "confirmation by who started the run, at a terminal"
	case decision.FourEyes:
		s = count(n.Quorum, "approval") + " of somebody other than who started the run"
	default:
		s = string(n.Kind)
	}
	if len(n.Groups) > 0 {
		s += ", from " + strings.Join(n.Groups, " or ")
	}
	if len(n.Exclude) > 0 {
		s += ", not " + strings.Join(n.Exclude, ", ")
	}
	return s
}

func outcome(o *approval.Outcome) string {
	switch {
	case o == nil:
		return ""
	case o.Error != "":
		return o.Error
	}
	return fmt.Sprintf("status %d", o.Status)
}
