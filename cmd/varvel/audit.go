package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// defaultEvents is how many events are shown if nothing says how many.
const defaultEvents = 100

// defaultAuditDir is where the log of a node with the default state_dir is.
const defaultAuditDir = "/var/lib/varvel/audit"

type auditCmd struct {
	Verify   string `arg:"" optional:"" enum:",verify" default:"" help:"Write verify to check that nobody has changed the log."`
	Dir      string `help:"Read the files in this directory and ask no daemon. For verify: ${auditDir} by default." placeholder:"DIR" type:"path"`
	OfRun    string `name:"run" placeholder:"ID" predictor:"run" help:"Only events of this run."`
	Agent    string `placeholder:"NAME" predictor:"agent" help:"Only events of this agent."`
	Actor    string `placeholder:"ID" help:"Only events of this machine account (a SPIFFE ID)."`
	Kind     string `placeholder:"KIND" predictor:"kind" help:"Only events of this kind, as in http or approval."`
	Effect   string `placeholder:"EFFECT" help:"Only events with this effect: allow, deny or hold." enum:",allow,deny,hold" default:""`
	Decision string `placeholder:"ID" help:"Only events of this decision."`
	Approval string `placeholder:"ID" predictor:"approval" help:"Only events of this approval."`
	Since    string `help:"Only events from then on: a duration back from now (90m, 2d), a date or a time." placeholder:"WHEN"`
	Until    string `help:"Only events before then." placeholder:"WHEN"`
	Follow   bool   `short:"f" help:"Go on with the events that come."`
	Limit    int    `short:"n" help:"At most so many; the newest, unless --since is given. 0 is all. Without it and --since: 100." default:"-1" placeholder:"N"`
}

// Help is shown below the flags.
func (auditCmd) Help() string {
	return `JSON output is one event a line.

"varvel audit verify" reads the files and needs no daemon. Exit code 1 then means that something was changed or could not be read; the first bad place is named.

Examples:
  varvel audit --run run_01J9ZK3V8Q2M4N6P8R0S2T4V6X
  varvel audit --effect deny --since 2h
  varvel audit --agent billing-bot --follow -o json
  sudo varvel audit verify
  varvel audit verify --dir /mnt/evidence/audit -o json`
}

// Run writes the events, or verifies the log.
func (c auditCmd) Run(e *env) error {
	if c.Verify != "" {
		return e.verify(cmp.Or(c.Dir, defaultAuditDir))
	}
	q, err := c.query(e.tui.now())
	if err != nil {
		return &exitError{exitUsage, usage(err)}
	}
	ctx, stop := e.interruptible()
	defer stop()
	if c.Dir != "" {
		_, err := e.events(audit.Query(ctx, c.Dir, q.Filter))
		return err
	}
	last, err := e.events(e.client().Events(ctx, q))
	if c.Follow && err == nil {
		next := api.EventQuery{Filter: q.Filter, Follow: true}
		next.Limit, next.Newest, next.After = 0, false, max(last, q.After)
		if last == 0 && q.Since.IsZero() {
			next.Since = e.tui.now()
		}
		_, err = e.events(e.client().Events(ctx, next))
	}
	if errors.Is(err, context.Canceled) && c.Follow {
		return nil
	}
	return err
}

// query turns the flags into a query. The newest events are wanted unless
// somebody says since when.
func (c auditCmd) query(now time.Time) (q api.EventQuery, err error) {
	q.Filter = audit.Filter{
		Run: c.OfRun, Agent: c.Agent, Actor: c.Actor, Kind: audit.Kind(c.Kind), Effect: decision.Effect(c.Effect),
		DecisionID: c.Decision, ApprovalID: c.Approval,
	}
	if q.Kind != "" && !q.Kind.Known() {
		return q, fmt.Errorf("the kind %q is not known; known are: %s", c.Kind, strings.Join(kinds(), ", "))
	}
	if q.Since, err = parseWhen(c.Since, now); err != nil {
		return q, err
	}
	if q.Until, err = parseWhen(c.Until, now); err != nil {
		return q, err
	}
	switch {
	case c.Follow && c.Dir != "":
		return q, errors.New("--follow needs the daemon and does not go with --dir")
	case c.Limit >= 0:
		q.Limit = c.Limit
	case c.Limit < -1:
		return q, errors.New("the limit must not be negative")
	case c.Since == "":
		q.Limit = defaultEvents
	}
	q.Newest = q.Limit > 0 && c.Since == ""
	return q, nil
}

func kinds() []string {
	var names []string
	for _, k := range audit.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// parseWhen reads a duration back from now, a date, or a time.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := parseSpan(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time; write a duration (90m, 2d), a date (2026-01-31) or a time (2026-01-31T15:04:05Z)", s)
}

// parseSpan reads a duration, also in days.
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

// events writes events as they come and returns the number of the last one.
func (e *env) events(list iter.Seq2[audit.Event, error]) (last uint64, err error) {
	for event, err := range list {
		if err != nil {
			return last, err
		}
		last = event.Seq
		if !e.json() {
			e.tui.line("%s", e.eventLine(event))
			continue
		}
		if err := e.tui.jsonLine(event); err != nil {
			return last, err
		}
	}
	return last, nil
}
