package main

import (
	"context"
	"regexp"
	"time"

	"github.com/alecthomas/kong"
	"github.com/posener/complete"
	"github.com/willabides/kongplete"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/approval"
)

// completionTimeout bounds how long the Tab key waits for the daemon.
const completionTimeout = 500 * time.Millisecond

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown below the flags.
func (completionCmd) Help() string {
	return `Names of agents, runs and approvals come from the daemon.

Examples:
  source <(varvel completion bash)
  varvel completion zsh > "${fpath[1]}/_varvel"
  varvel completion fish > ~/.config/fish/completions/varvel.fish`
}

// The scripts let the shell call varvel with COMP_LINE set, as bash's
// "complete -C" does.
const (
	bashScript = `complete -o default -C varvel varvel
`
	zshScript = `#compdef varvel
autoload -U +X bashcompinit && bashcompinit
complete -o default -C varvel varvel
# The first Tab has only loaded this file as a function; it is answered here.
if [ "$funcstack[1]" = _varvel ]; then
    _bash_complete -o default -C varvel
fi
`
	fishScript = `function __varvel_complete
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    varvel
end
complete -f -c varvel -a "(__varvel_complete)"
`
)

// Run prints the script.
func (c completionCmd) Run(e *env) error {
	script := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[c.Shell]
	_, err := e.tui.out.Write([]byte(script))
	return err
}

// complete answers the shell if it asks for completions, and reports whether
// it did.
func (e *env) complete(parser *kong.Kong) bool {
	if e.getenv("COMP_LINE") == "" {
		return false
	}
	done := false
	kongplete.Complete(parser,
		kongplete.WithPredictors(e.predictors()),
		kongplete.WithExitFunc(func(int) { done = true }),
		kongplete.WithErrorHandler(func(error) {}),
	)
	return done
}

func (e *env) predictors() map[string]complete.Predictor {
	return map[string]complete.Predictor{
		"agent":    e.predict(agentNames),
		"run":      e.predict(runIDs),
		"approval": e.predict(func(ctx context.Context, c *api.Client) ([]string, error) { return approvalIDs(ctx, c, "") }),
		"pending": e.predict(func(ctx context.Context, c *api.Client) ([]string, error) {
			return approvalIDs(ctx, c, string(approval.Pending))
		}),
		"kind": complete.PredictSet(kinds()...),
	}
}

// predict asks the daemon. Without an answer there are no suggestions.
func (e *env) predict(ask func(context.Context, *api.Client) ([]string, error)) complete.Predictor {
	plain := regexp.MustCompile(`^[A-Za-z0-9._-]+$`)
	return complete.PredictFunc(func(complete.Args) []string {
		ctx, cancel := context.WithTimeout(e.ctx, completionTimeout)
		defer cancel()
		socket := e.getenv("VARVEL_SOCKET")
		if socket == "" {
			socket = "/run/varvel/admin.sock"
		}
		names, err := ask(ctx, api.NewClient(socket))
		if err != nil {
			return nil
		}
		var usable []string
		for _, name := range names {
			if plain.MatchString(name) {
				usable = append(usable, name)
			}
		}
		return usable
	})
}

func agentNames(ctx context.Context, c *api.Client) ([]string, error) {
	list, err := c.Agents(ctx)
	return names(list, func(a api.Agent) string { return a.Name }), err
}

func runIDs(ctx context.Context, c *api.Client) ([]string, error) {
	list, err := c.Runs(ctx)
	return names(list, func(r api.Run) string { return r.ID }), err
}

func approvalIDs(ctx context.Context, c *api.Client, state string) ([]string, error) {
	list, err := c.Approvals(ctx, "", state)
	return names(list, func(a approval.Approval) string { return a.ID }), err
}

func names[T any](list []T, name func(T) string) []string {
	var out []string
	for _, v := range list {
		out = append(out, name(v))
	}
	return out
}
