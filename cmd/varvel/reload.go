package main

import (
	"errors"

	"github.com/varvel/varvel/internal/admin/api"
)

type reloadCmd struct{}

// Help is shown below the flags.
func (reloadCmd) Help() string {
	return `A configuration that is not valid changes nothing.

Examples:
  varvel check && varvel reload`
}

// Run reloads.
func (reloadCmd) Run(e *env) error {
	r, err := e.client().Reload(e.ctx)
	var p *api.Problem
	if errors.As(err, &p) && !e.json() {
		e.printProblems(p.Problems)
	}
	return show(e, r, err, func() {
		e.tui.line("Reloaded: %d agents, %d tools, %d live runs; policy %s.", r.Agents, r.Tools, r.Runs, r.PolicyRevision)
	})
}
