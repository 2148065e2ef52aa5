package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/policy"
)

type checkCmd struct {
	Dir string `arg:"" optional:"" help:"The directory with varvel.yaml." default:"/etc/varvel" type:"path"`
}

// Help is shown below the flags.
func (checkCmd) Help() string {
	return `It names every problem at once, compiles the policy and runs the policy's tests. Exit code 1 means that there are problems. Nothing is changed.

Examples:
  varvel check
  varvel check ./deploy/varvel -o json`
}

// checked is the answer of check as JSON.
type checked struct {
	Agents   int              `json:"agents"`
	Tools    int              `json:"tools"`
	Tests    int              `json:"policy_tests"`
	Problems []config.Problem `json:"problems"`
}

// Run checks the configuration.
func (c checkCmd) Run(e *env) error {
	result, err := checkDir(e.ctx, c.Dir)
	if err != nil {
		return err
	}
	if e.json() {
		if err := e.tui.json(result); err != nil {
			return err
		}
	} else {
		e.printProblems(result.Problems)
		e.tui.line("%s, %s, %s, %s", count(result.Agents, "agent"), count(result.Tools, "tool"), count(result.Tests, "policy test"), count(len(result.Problems), "problem"))
	}
	if len(result.Problems) > 0 {
		return &exitError{code: exitFailure}
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (e *env) printProblems(list []config.Problem) {
	for _, p := range list {
		e.tui.line("%s: %s", config.Position{File: p.File, Line: p.Line}, p.Message)
		if p.Hint != "" {
			e.tui.line("    hint: %s", p.Hint)
		}
	}
}

// checkDir loads a configuration and compiles its policy. Problems are part of
// the result; the error is that it could not be checked at all.
func checkDir(ctx context.Context, dir string) (checked, error) {
	result := checked{Problems: []config.Problem{}}
	cfg, err := config.Load(dir)
	var problems *config.Problems
	switch {
	case errors.As(err, &problems):
		result.Problems = append(result.Problems, *problems...)
		err := checkPolicy(ctx, config.PolicyDirs(dir), &result)
		return result, err
	case err != nil:
		return result, fmt.Errorf("check %s: %w", dir, err)
	}
	result.Agents, result.Tools = len(cfg.Agents), len(cfg.Tools)
	err = checkPolicy(ctx, cfg.Node.Policy.Dirs, &result)
	return result, err
}

// checkPolicy names what is wrong with the policy, and runs its tests if it can.
func checkPolicy(ctx context.Context, dirs []string, result *checked) error {
	tests, problems, err := policy.Check(ctx, dirs)
	if err != nil {
		return fmt.Errorf("run the policy's tests: %w", err)
	}
	for _, p := range problems {
		result.Problems = append(result.Problems, config.Problem{File: cmp.Or(p.File, "policy"), Line: p.Line, Message: p.Message})
	}
	result.Tests = len(tests)
	for _, t := range tests {
		if !t.Passed() {
			result.Problems = append(result.Problems, config.Problem{
				File: t.File, Line: t.Line, Message: fmt.Sprintf("policy test %s.%s: %s", t.Package, t.Name, t.Failure),
			})
		}
	}
	return ctx.Err()
}
