package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/decision"
)

type runsCmd struct {
	ID string `arg:"" optional:"" predictor:"run" help:"Show this run only."`
}

// Help is shown below the flags.
func (runsCmd) Help() string {
	return `Without a role you see the runs that you have started.

Examples:
  varvel runs
  varvel runs run_01J9ZK3V8Q2M4N6P8R0S2T4V6X`
}

// Run lists the runs, or shows one.
func (c runsCmd) Run(e *env) error {
	if c.ID != "" {
		r, err := e.client().Run(e.ctx, c.ID)
		return show(e, r, err, func() { e.printRun(r) })
	}
	list, err := e.client().Runs(e.ctx)
	return show(e, list, err, func() {
		var rows [][]string
		for _, r := range list {
			rows = append(rows, []string{r.ID, r.Agent, string(r.Mode), person(r.StartedBy), e.tui.when(r.Started), fmt.Sprint(r.ApprovalsPending), strings.Join(r.Command, " ")})
		}
		e.tui.table("No runs are alive.", []string{"RUN", "AGENT", "MODE", "BY", "STARTED", "PENDING", "COMMAND"}, rows)
	})
}

func (e *env) printRun(r api.Run) {
	e.tui.fields("run", r.ID, "agent", r.Agent, "owner", r.Owner, "mode", string(r.Mode), "account", r.Account,
		"started by", person(r.StartedBy), "started", e.tui.when(r.Started), "starting", yes(r.Starting), "revoked", yes(r.Revoked), "frozen", yes(r.Frozen), "tools", strings.Join(r.Tools, ", "),
		"approvals pending", fmt.Sprint(r.ApprovalsPending), "cgroup", r.CgroupPath, "command", strings.Join(r.Command, " "))
}

// yes is a field's text for true; a field without text is left out.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// show writes v as JSON, or calls text, unless err is set.
func show[T any](e *env, v T, err error, text func()) error {
	switch {
	case err != nil:
		return err
	case e.json():
		return e.tui.json(v)
	}
	text()
	return nil
}

func person(u *decision.LocalUser) string {
	switch {
	case u == nil:
		return ""
	case u.Name == "":
		return fmt.Sprintf("uid %d", u.UID)
	}
	return fmt.Sprintf("%s (uid %d)", u.Name, u.UID)
}

type agentsCmd struct{}

// Help is shown below the flags.
func (agentsCmd) Help() string {
	return `Examples:
  varvel agents
  varvel agents -o json | jq '.[].egress'`
}

// Run lists the agents.
func (agentsCmd) Run(e *env) error {
	list, err := e.client().Agents(e.ctx)
	return show(e, list, err, func() {
		var rows [][]string
		for _, a := range list {
			rows = append(rows, []string{a.Name, a.Owner, string(a.Mode), strings.Join(a.Tools, ","), fmt.Sprint(len(a.Egress)), listenText(a.Listen), fmt.Sprint(a.Runs), fmt.Sprintf("%s:%d", a.File, a.Line)})
		}
		e.tui.table("No agents are configured.", []string{"AGENT", "OWNER", "MODE", "TOOLS", "RULES", "LISTEN", "RUNS", "WHERE"}, rows)
	})
}

// listenText is what ports others may reach, such as "8080 5000-5010/any".
func listenText(rules []api.ListenRule) string {
	var ports []string
	for _, r := range rules {
		p := r.Port
		if r.Protocol != "tcp" {
			p += "/" + r.Protocol
		}
		if !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	return strings.Join(ports, " ")
}

type toolsCmd struct{}

// Help is shown below the flags.
func (toolsCmd) Help() string {
	return `Examples:
  varvel tools
  varvel tools -o json | jq '.[] | select(.name == "stripe").actions'`
}

// Run lists the tools and their actions.
func (toolsCmd) Run(e *env) error {
	list, err := e.client().Tools(e.ctx)
	return show(e, list, err, func() {
		var rows [][]string
		for _, t := range list {
			rows = append(rows, []string{t.Name, strings.Join(t.Hosts, ","), t.Client, "", "", strings.Join(t.Agents, ",")})
			for _, a := range t.Actions {
				rows = append(rows, []string{"  " + a.Name, strings.Join(a.Methods, ",") + " " + a.Path, "", string(a.Risk), a.Approval})
			}
		}
		e.tui.table("No tools are configured.", []string{"TOOL", "HOSTS", "CLIENT", "RISK", "APPROVAL", "AGENTS"}, rows)
	})
}

type leasesCmd struct{}

// Help is shown below the flags.
func (leasesCmd) Help() string {
	return `The tokens themselves are never shown.

Examples:
  varvel leases`
}

// Run lists the leases.
func (leasesCmd) Run(e *env) error {
	list, err := e.client().Leases(e.ctx)
	return show(e, list, err, func() {
		var rows [][]string
		for _, l := range list {
			rows = append(rows, []string{l.Run, l.Agent, l.Tool, l.Audience, e.tui.when(l.Expires)})
		}
		e.tui.table("No tokens are in use.", []string{"RUN", "AGENT", "TOOL", "AUDIENCE", "EXPIRES"}, rows)
	})
}
