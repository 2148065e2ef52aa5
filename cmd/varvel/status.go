package main

import (
	"fmt"

	"github.com/varvel/varvel/internal/admin/api"
)

type statusCmd struct{}

// Help is shown below the flags.
func (statusCmd) Help() string {
	return `Exit code 1 means that something is failing.

Examples:
  varvel status
  varvel status -o json | jq .findings`
}

// Run shows the status.
func (statusCmd) Run(e *env) error {
	s, err := e.client().Status(e.ctx)
	if err != nil {
		return err
	}
	if e.json() {
		err = e.tui.json(s)
	} else {
		e.printStatus(s)
	}
	if err == nil && !s.Healthy {
		return &exitError{code: exitFailure}
	}
	return err
}

func (e *env) printStatus(s api.Status) {
	health := "ok"
	switch {
	case !s.Healthy:
		health = "failing"
	case len(s.Findings) > 0:
		health = "degraded"
	}
	e.tui.fields(
		"health", health, "node", s.Node, "trust domain", s.TrustDomain, "version", s.Version,
		"started", e.tui.when(s.Started), "runs", fmt.Sprint(s.Runs), "agents", fmt.Sprint(s.Agents), "tools", fmt.Sprint(s.Tools),
		"approvals pending", fmt.Sprint(s.ApprovalsPending), "audit events", fmt.Sprint(s.AuditSeq),
		"policy", s.PolicyRevision, "configuration", s.ConfigDir,
	)
	for _, f := range s.Findings {
		e.tui.line("")
		e.tui.line("%s %s, since %s", f.Severity, f.Code, e.tui.when(f.Since))
		e.tui.line("  %s", f.Sentence)
		if f.Detail != "" {
			e.tui.line("  %s", f.Detail)
		}
		e.tui.line("  %s", f.Remedy)
	}
	for i, c := range s.Controls {
		if i == 0 {
			e.tui.line("")
		}
		state := "on"
		if !c.Active {
			state = "OFF"
		}
		e.tui.line("control %s: %s %s", c.Name, state, c.Detail)
	}
}
