package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/decision"
)

type approveCmd struct {
	ID     string `arg:"" predictor:"pending" help:"The approval, as in apr_…"`
	Reason string `help:"Why, for the audit log." placeholder:"TEXT"`
	Yes    bool   `short:"y" help:"Do not ask. Not for approvals that need confirmation at a terminal."`
}

// Help is shown below the flags.
func (approveCmd) Help() string {
	return `It shows what would run and asks. What is approved is exactly what was shown, once.

Examples:
  varvel approve apr_01J9ZK4B1D3F5H7K9M1P3R5T7V --reason "ticket 4711"`
}

// Run shows the approval, asks, and approves.
func (c approveCmd) Run(e *env) error {
	a, err := e.client().Approval(e.ctx, c.ID)
	if err != nil {
		return err
	}
	if a.State != approval.Pending {
		return hint(fmt.Errorf("%s does not wait for approval: it is %s", a.ID, a.State), "see: varvel approvals")
	}
	if !e.json() {
		e.printApproval(a)
	}
	presence, err := c.consent(e, a)
	if err != nil {
		return err
	}
	a, err = e.client().Approve(e.ctx, a.ID, api.Vote{Reason: c.Reason, Preview: a.PreviewDigest, Presence: presence})
	return show(e, a, err, func() { e.tui.line("%s", resolved(a)) })
}

// consent asks the person. It returns the presence that this shows.
func (c approveCmd) consent(e *env, a approval.Approval) (presence string, err error) {
	switch {
	case a.Need.Kind == decision.Confirm && !isTerminal(e.stdin):
		return "", hint(errors.New("this needs to be confirmed by a person at a terminal"), "run it in an interactive terminal, with its input not redirected")
	case a.Need.Kind == decision.Confirm:
		return api.PresenceTerminal, e.typeCode(shortCode(a))
	case c.Yes:
		return "", nil
	case !isTerminal(e.stdin):
		return "", hint(errors.New("there is no terminal to ask at"), "add --yes if you have read what would run")
	}
	return "", e.yesNo("Approve this? [y/N]")
}

// shortCode is what a person types to confirm: the first digits of the digest
// of what would run.
func shortCode(a approval.Approval) string {
	hex := strings.TrimPrefix(a.Request.Digest, "sha256:")
	return hex[:min(len(hex), 6)]
}

func (e *env) typeCode(code string) error {
	if code == "" {
		return errors.New("this approval has no digest, so there is nothing to confirm")
	}
	e.tui.ask("Type %s to confirm that exactly this may run:", code)
	answer, err := readLine(e.stdin)
	if err != nil {
		return err
	}
	if !strings.EqualFold(answer, code) {
		return &exitError{exitFailure, errors.New("that is not the code, so nothing was approved")}
	}
	return nil
}

func (e *env) yesNo(question string) error {
	e.tui.ask("%s", question)
	answer, err := readLine(e.stdin)
	if err != nil {
		return err
	}
	if a := strings.ToLower(answer); a != "y" && a != "yes" {
		return &exitError{exitFailure, errors.New("nothing was approved")}
	}
	return nil
}

// readLine reads what a person types, up to the end of the line.
func readLine(f *os.File) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(f, 1024)).ReadString('\n')
	if err != nil {
		return "", errors.New("no answer was given, so nothing was approved")
	}
	return strings.TrimSpace(line), nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// resolved says where an approval stands after a vote.
func resolved(a approval.Approval) string {
	if a.State != approval.Pending {
		return fmt.Sprintf("%s is %s.", a.ID, a.State)
	}
	yes := 0
	for _, v := range a.Votes {
		if v.Approve {
			yes++
		}
	}
	return fmt.Sprintf("%s has %d of %d approvals.", a.ID, yes, a.Need.Quorum)
}

type denyCmd struct {
	ID     string `arg:"" predictor:"pending" help:"The approval, as in apr_…"`
	Reason string `help:"Why, for the audit log and for the program that waits." placeholder:"TEXT"`
}

// Help is shown below the flags.
func (denyCmd) Help() string {
	return `Examples:
  varvel deny apr_01J9ZK4B1D3F5H7K9M1P3R5T7V --reason "wrong account"`
}

// Run denies.
func (c denyCmd) Run(e *env) error {
	a, err := e.client().Deny(e.ctx, c.ID, api.Vote{Reason: c.Reason})
	return show(e, a, err, func() { e.tui.line("%s", resolved(a)) })
}
