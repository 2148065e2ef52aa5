package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Problem is one thing that is wrong with a policy, and where.
type Problem struct {
	File    string
	Line    int // 1 is the first; 0 if the place is not known
	Message string
}

// Error returns "file:line: message".
func (p Problem) Error() string {
	switch {
	case p.File == "":
		return p.Message
	case p.Line == 0:
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
}

// Problems is everything that is wrong with a policy, in the order in which it
// was found.
type Problems []Problem

// Error returns one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// asProblems gives OPA's errors the form file:line: message. Others stay as
// they are.
func asProblems(err error) error {
	var many ast.Errors
	var one *ast.Error
	var run *topdown.Error
	switch {
	case errors.As(err, &many):
		ps := make(Problems, 0, len(many))
		for _, e := range many {
			ps = append(ps, problem(e.Location, e.Message))
		}
		return ps
	case errors.As(err, &one):
		return Problems{problem(one.Location, one.Message)}
	case errors.As(err, &run):
		return Problems{problem(run.Location, run.Message)}
	}
	return err
}

func problem(at *ast.Location, message string) Problem {
	if at == nil {
		return Problem{Message: message}
	}
	return Problem{File: at.File, Line: at.Row, Message: message}
}
