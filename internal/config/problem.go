package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"` // from 1; 0: the file as a whole
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do
}

// String returns "file:line: message", and the hint on a line of its own.
func (p Problem) String() string {
	s := Position{File: p.File, Line: p.Line}.String() + ": " + p.Message
	if p.Hint != "" {
		s += "\n    hint: " + p.Hint
	}
	return s
}

// Problems is everything that is wrong with a configuration, sorted by file
// and line. It is the error of Load.
type Problems []Problem

// Error returns all problems, and their number.
func (ps *Problems) Error() string {
	var b strings.Builder
	for _, p := range *ps {
		fmt.Fprintln(&b, p)
	}
	if len(*ps) == 1 {
		return b.String() + "1 problem"
	}
	return fmt.Sprintf("%s%d problems", b.String(), len(*ps))
}

func (ps *Problems) add(at Position, hint, format string, args ...any) {
	*ps = append(*ps, Problem{File: at.File, Line: at.Line, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// err returns the sorted problems without repetitions, or nil if there are none.
func (ps *Problems) err() error {
	if len(*ps) == 0 {
		return nil
	}
	slices.SortFunc(*ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	*ps = slices.Compact(*ps)
	return ps
}
