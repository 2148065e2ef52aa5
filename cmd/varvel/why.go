package main

import (
	"fmt"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
)

type whyCmd struct {
	RunID string `arg:"" name:"run" predictor:"run" help:"The run."`
	Dest  string `arg:"" name:"dest" help:"A name, an address or a URL, with a port if you like; with --from a port of the run."`

	From     string `placeholder:"ADDRESS" help:"Explain whether this peer may come to a port of the run."`
	Protocol string `enum:"tcp,udp" default:"tcp" help:"With --from: tcp or udp."`
}

// Help is shown below the flags.
func (whyCmd) Help() string {
	return `It says by which line of the configuration the run reaches the destination, or which line would allow it. With --from
it says the same of those who come to the run.

Examples:
  varvel why run_01J9ZK3V8Q2M4N6P8R0S2T4V6X api.example.org:443
  varvel why run_01J9ZK3V8Q2M4N6P8R0S2T4V6X '[2001:db8::1]:5432'
  varvel why run_01J9ZK3V8Q2M4N6P8R0S2T4V6X https://api.example.org/v1/things
  varvel why run_01J9ZK3V8Q2M4N6P8R0S2T4V6X 8080 --from 192.0.2.7`
}

// Run explains.
func (c whyCmd) Run(e *env) error {
	if c.From != "" {
		w, err := e.client().WhyFrom(e.ctx, c.RunID, c.Dest, c.From, c.Protocol)
		return show(e, w, err, func() { e.printWhy(w) })
	}
	w, err := e.client().Why(e.ctx, c.RunID, c.Dest)
	return show(e, w, err, func() { e.printWhy(w) })
}

func (e *env) printWhy(w api.Why) {
	e.tui.line("%s. %s", strings.ToUpper(string(w.Verdict)), w.Sentence)
	if w.By != nil {
		e.tui.line("  by %s%s", w.By.Text, at(w.By.File, w.By.Line))
	}
	for _, n := range w.Notes {
		e.tui.line("  %s", n)
	}
	if w.Fix == nil {
		return
	}
	e.tui.line("To allow it, put this under `%s`%s, then run `varvel check` and `varvel reload`:", w.Fix.Key, at(w.Fix.File, w.Fix.Line))
	e.tui.block(w.Fix.YAML)
}

// at returns a place as in " (file:12)", or nothing.
func at(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line == 0:
		return fmt.Sprintf(" (%s)", file)
	}
	return fmt.Sprintf(" (%s:%d)", file, line)
}
