package main

import (
	"fmt"
	"path/filepath"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"github.com/varvel/varvel/internal/admin/api"
)

// globals are the flags that every command has.
type globals struct {
	Socket  string      `help:"The daemon's admin socket." placeholder:"PATH" default:"/run/varvel/admin.sock" env:"VARVEL_SOCKET"`
	Output  string      `short:"o" help:"Write text for people or json for programs." enum:"text,json" default:"text"`
	Version versionFlag `help:"Print the version and exit."`
}

// commands is the command tree. Nouns read, verbs write.
type commands struct {
	globals

	Status    statusCmd    `cmd:"" group:"read" help:"Show whether the node is well, and what is not."`
	Runs      runsCmd      `cmd:"" group:"read" help:"List the live runs, or show one."`
	Agents    agentsCmd    `cmd:"" group:"read" help:"List the configured agents."`
	Tools     toolsCmd     `cmd:"" group:"read" help:"List the configured tools and their actions."`
	Leases    leasesCmd    `cmd:"" group:"read" help:"List the tokens that are in use."`
	Approvals approvalsCmd `cmd:"" group:"read" help:"List what waits for approval, or show one."`
	Audit     auditCmd     `cmd:"" group:"read" help:"Search the audit log, or verify it."`
	Why       whyCmd       `cmd:"" group:"read" help:"Explain why a run reaches a destination, or why not."`

	Run        runCmd        `cmd:"" group:"write" help:"Start an agent's command, confined."`
	Approve    approveCmd    `cmd:"" group:"write" help:"Approve a held action."`
	Deny       denyCmd       `cmd:"" group:"write" help:"Refuse a held action."`
	Revoke     revokeCmd     `cmd:"" group:"write" help:"Take from a run all that it may reach."`
	Check      checkCmd      `cmd:"" group:"write" help:"Check the configuration on disk; needs no daemon."`
	Reload     reloadCmd     `cmd:"" group:"write" help:"Put the configuration on disk into force."`
	Completion completionCmd `cmd:"" group:"write" help:"Print the completion script of a shell."`
}

const description = `Varvel governs AI agents on this host: who acts, what they reach, which secrets they use, and who approves.

Exit codes: 0 it worked, 1 it failed, 2 wrong usage, 3 refused, 4 the daemon cannot be reached. "varvel run" has the code of its command; 125 Varvel could not start it, 126 it cannot be executed, 127 it was not found.`

func newParser(e *env) (*kong.Kong, *commands, error) {
	c := &commands{}
	p, err := kong.New(c,
		kong.Name("varvel"), kong.Description(description),
		kong.Writers(e.tui.out, e.tui.err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{{Key: "read", Title: "Nouns read:"}, {Key: "write", Title: "Verbs write:"}}),
		kong.Vars{"auditDir": defaultAuditDir}, kong.Bind(e),
	)
	if err != nil {
		return nil, nil, fmt.Errorf("build the command line: %w", err)
	}
	return p, c, nil
}

// client returns a client of the daemon.
func (e *env) client() *api.Client { return api.NewClient(e.flags.Socket) }

// launchSocket is where runs are started: beside the admin socket.
func (e *env) launchSocket() string {
	if s := e.getenv("VARVEL_LAUNCH_SOCKET"); s != "" {
		return s
	}
	return filepath.Join(filepath.Dir(e.flags.Socket), "launch.sock")
}

func (e *env) json() bool { return e.flags.Output == "json" }

type versionFlag bool

// BeforeReset prints the version before anything else is looked at.
func (versionFlag) BeforeReset(app *kong.Kong, e *env) error {
	e.tui.line("varvel %s", buildVersion())
	app.Exit(exitOK)
	return nil
}

// buildVersion returns the module's version, which the go command stamps.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
