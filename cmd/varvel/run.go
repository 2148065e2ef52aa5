package main

import (
	"os"

	"github.com/varvel/varvel/internal/launch"
)

type runCmd struct {
	Agent   string   `required:"" short:"a" predictor:"agent" help:"The agent whose command it is." placeholder:"NAME"`
	Quiet   bool     `short:"q" help:"Say nothing of removed variables, and nothing of refusals at the end."`
	Command []string `arg:"" passthrough:"partial" help:"The command and its arguments."`
}

// Help is shown below the flags.
func (runCmd) Help() string {
	return `The command has the terminal, the signals and the exit code that it would have without Varvel. What was refused is summed up on standard error at the end.

Exit codes: those of the command; 125 Varvel could not start it, 126 it cannot be executed, 127 it was not found, 128+N it was ended by signal N.

Examples:
  varvel run --agent billing-bot -- ./reconcile --month 2026-01
  varvel run --agent shell --quiet -- bash -l`
}

// Run starts the command and ends as it does.
func (c runCmd) Run(e *env) error {
	argv := c.Command
	if len(argv) > 1 && argv[0] == "--" {
		argv = argv[1:]
	}
	client := &launch.Client{
		Socket: e.launchSocket(), Quiet: c.Quiet,
		Stdin: e.stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	status, err := client.Run(e.ctx, c.Agent, argv)
	if err != nil || status != 0 {
		return &exitError{code: status, err: err}
	}
	return nil
}
