package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/varvel/varvel/internal/admin/api"
)

// The exit codes. `varvel run` has those of its command besides.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnreachable = 4
	exitNotStarted  = 125
	exitInterrupted = 130
)

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

// Unwrap returns the error without its hint.
func (h hinted) Unwrap() error { return h.error }

// hint adds what to do to an error.
func hint(err error, format string, args ...any) error {
	return hinted{err, fmt.Sprintf(format, args...)}
}

// exitError ends the program with a code. Without err nothing is written.
type exitError struct {
	code int
	err  error
}

// Error returns the error's text, or the code.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns the error.
func (e *exitError) Unwrap() error { return e.err }

// usage is an error of who has typed the command.
func usage(err error) error { return hint(err, "see: varvel --help") }

// finish writes an error and returns the exit code that it stands for.
func (e *env) finish(err error) int {
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			e.tui.failure(e.advise(exit.err))
		}
		return exit.code
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	e.tui.failure(e.advise(err))
	return codeOf(err)
}

func codeOf(err error) int {
	var p *api.Problem
	switch {
	case errors.Is(err, fs.ErrPermission):
		return exitRefused
	case errors.Is(err, api.ErrUnreachable):
		return exitUnreachable
	case errors.As(err, &p) && p.Status == http.StatusForbidden:
		return exitRefused
	}
	return exitFailure
}

// advise adds a hint to an error that has none.
func (e *env) advise(err error) error {
	var h hinted
	var p *api.Problem
	switch {
	case errors.As(err, &h):
		return err
	case errors.As(err, &p):
		return hint(err, "%s", strings.TrimSuffix(p.Hint, "."))
	case errors.Is(err, api.ErrUnreachable) && errors.Is(err, fs.ErrPermission):
		return hint(err, "you may not open the socket; use sudo, or join the group of the socket")
	case errors.Is(err, api.ErrUnreachable):
		return hint(err, "start the daemon with: systemctl start varveld; another socket is named with --socket")
	case errors.Is(err, fs.ErrPermission):
		return hint(err, "use sudo")
	}
	return err
}

// usageCode returns the code of a command line that is wrong. The codes of
// `varvel run` below 125 belong to its command.
func usageCode(err error) int {
	var p *kong.ParseError
	if errors.As(err, &p) && p.Context != nil {
		if n := p.Context.Selected(); n != nil && n.Name == "run" {
			return exitNotStarted
		}
	}
	return exitUsage
}
