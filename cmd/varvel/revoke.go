package main

import "github.com/varvel/varvel/internal/admin/api"

type revokeCmd struct {
	ID     string `arg:"" predictor:"run" help:"The run, as in run_…"`
	Reason string `help:"Why, for the audit log." placeholder:"TEXT"`
	Kill   bool   `help:"End the run's processes too."`
}

// Help is shown below the flags.
func (revokeCmd) Help() string {
	return `The run loses all that it may reach, for good: its connections are cut, its tokens are
dropped, and what waits for approval is cancelled. Its processes go on, with nothing to
talk to but themselves; --kill ends them.

Examples:
  varvel revoke run_01J9ZK3V8Q2M4N6P8R0S2T4V6X --reason "looks hijacked"
  varvel revoke --kill run_01J9ZK3V8Q2M4N6P8R0S2T4V6X`
}

// Run revokes.
func (c revokeCmd) Run(e *env) error {
	r, err := e.client().Revoke(e.ctx, c.ID, api.Revoke{Reason: c.Reason, Kill: c.Kill})
	return show(e, r, err, func() {
		e.tui.line("%s is revoked: %d connections cut.", r.Run, r.Connections)
		if r.Killed {
			e.tui.line("Its processes were killed.")
		}
	})
}
