package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// report prints numbered steps as they end, and counts expectations.
type report struct {
	out            io.Writer
	colour         bool
	verbose        bool
	steps          int
	passed, failed int
}

// outcome collects what one step has shown.
type outcome struct {
	notes  []string
	checks []check
}

// check is one expectation. Evidence is printed if it does not hold.
type check struct {
	held     bool
	what     string
	evidence string
}

// expect records whether something holds that a sentence says. The evidence is
// what was seen, for the case that it does not.
func (o *outcome) expect(held bool, what string, evidence any) {
	o.checks = append(o.checks, check{held, what, fmt.Sprintf("%+v", evidence)})
}

// note adds one line of evidence for the reader.
func (o *outcome) note(format string, args ...any) {
	o.notes = append(o.notes, fmt.Sprintf(format, args...))
}

// add prints a step and counts its expectations. An error is one that failed,
// and so is a step that expected nothing.
func (r *report) add(sentence string, o *outcome, err error) {
	if err != nil {
		o.expect(false, "the step could be carried out", err)
	}
	if len(o.checks) == 0 {
		o.expect(false, "the step has shown something", "it expected nothing")
	}
	r.steps++
	mark := r.paint("32", "✓")
	for _, c := range o.checks {
		if c.held {
			r.passed++
			continue
		}
		r.failed++
		mark = r.paint("31", "✗")
	}
	fmt.Fprintf(r.out, "%3d %s %s\n", r.steps, mark, sentence)
	for _, n := range o.notes {
		fmt.Fprintf(r.out, "      %s\n", r.paint("2", shown(n, 150)))
	}
	r.details(o)
}

// details prints the expectations that failed, or all if so asked.
func (r *report) details(o *outcome) {
	for _, c := range o.checks {
		switch {
		case !c.held:
			fmt.Fprintf(r.out, "      %s expected: %s\n", r.paint("31", "✗"), c.what)
			for line := range strings.Lines(shown(c.evidence, 4000)) {
				fmt.Fprintf(r.out, "          %s\n", strings.TrimRight(line, "\n"))
			}
		case r.verbose:
			fmt.Fprintf(r.out, "      %s %s\n", r.paint("32", "✓"), c.what)
		}
	}
}

// tally prints the last line.
func (r *report) tally() { fmt.Fprintf(r.out, "%d passed, %d failed\n", r.passed, r.failed) }

func (r *report) paint(code, text string) string {
	if !r.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// shown makes text of programs fit for a terminal: no control sequences, and
// not more than limit characters.
func shown(text string, limit int) string {
	var b strings.Builder
	for i, c := range []rune(strings.TrimSpace(text)) {
		if i == limit {
			b.WriteString("…")
			break
		}
		if c != '\n' && !unicode.IsPrint(c) {
			c = '.'
		}
		b.WriteRune(c)
	}
	return b.String()
}
