package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what a series has shown.
type Report struct {
	Seed     uint64            `json:"seed"`
	Began    time.Time         `json:"began"`
	Took     time.Duration     `json:"took_ns"`
	Skipped  map[string]string `json:"not_tried,omitempty"` // kinds, and why
	Outcomes []Outcome         `json:"interruptions"`

	Attempts        uint64   `json:"attempts"` // of runs
	Allowed         uint64   `json:"allowed_received"`
	Leaked          uint64   `json:"leaked"`
	Leaks           []string `json:"leaks,omitempty"` // the first
	OutsideAttempts uint64   `json:"non_agent_attempts"`
	OutsideFailures uint64   `json:"non_agent_failures"`
	Failures        []string `json:"failures,omitempty"` // the first
	RunsStarted     uint64   `json:"runs_started"`
	RunsEnded       uint64   `json:"runs_ended"` // by interruptions
	Passed          int      `json:"passed"`
	Failed          int      `json:"failed"`

	out io.Writer
	n   int // interruptions that were asked for
}

// announce says what will be done, and what can't be, and returns what can.
func (r *Report) announce(s *site, all []kind) []kind {
	var uname unix.Utsname
	_ = unix.Uname(&uname) // then there is no release to print
	fmt.Fprintf(r.out, "# Linux %s, seed %d, %d runs, %d interruptions\n",
		unix.ByteSliceToString(uname.Release[:]), r.Seed, s.options.Runs, r.n)
	var possible []kind
	r.Skipped = map[string]string{}
	for _, k := range all {
		if k.missing != nil {
			if why := k.missing(s); why != "" {
				r.Skipped[k.name] = why
				fmt.Fprintf(r.out, "# not tried: %s: %s\n", k.name, why)
				continue
			}
		}
		possible = append(possible, k)
	}
	return possible
}

// add counts an interruption and prints its line.
func (r *Report) add(o Outcome) {
	r.Outcomes = append(r.Outcomes, o)
	verdict := "passed"
	if o.Passed {
		r.Passed++
	} else {
		r.Failed++
		verdict = "FAILED"
	}
	fmt.Fprintf(r.out, "%4d/%d %-9s %s  allowed %5d  leaked %d  runs kept %d, ended %d  %5.1f s\n",
		o.N, r.n, o.Kind, verdict, o.Allowed, o.Leaked, o.Kept, o.Ended, o.Took.Seconds())
	for _, l := range o.Log {
		fmt.Fprintf(r.out, "       varveld: %s\n", l)
	}
	for _, w := range o.Wrong {
		fmt.Fprintf(r.out, "       %s\n", strings.ReplaceAll(strings.TrimSpace(w), "\n", "\n       "))
	}
}

// close collects the totals, ends the daemon, and looks for what is left of it
// and for what arrived last. All that belongs to the last interruption.
func (r *Report) close(s *site, err error) {
	r.Took = time.Since(r.Began)
	var wrong []string
	if err == nil {
		err = s.finish()
	} else if err == errInterrupted {
		err = nil // it was somebody's wish
	}
	now, lookErr := s.look()
	r.Attempts, r.Allowed, r.Leaked = now.made, now.received(), now.Leaked
	r.OutsideAttempts, r.OutsideFailures, r.Failures = now.outside.Attempts, now.outside.Failures, now.outside.First
	r.RunsStarted, r.RunsEnded = s.before.started, s.before.ended
	for _, l := range now.First {
		r.Leaks = append(r.Leaks, l.String())
	}
	for _, e := range []error{err, lookErr, now.controls()} {
		if e != nil {
			wrong = append(wrong, e.Error())
		}
	}
	if last := len(r.Outcomes) - 1; last >= 0 {
		r.blame(&r.Outcomes[last], wrong)
	}
}

// blame adds to an interruption what was found when all were over.
func (r *Report) blame(last *Outcome, wrong []string) {
	var leaked uint64
	for _, o := range r.Outcomes {
		leaked += o.Leaked
	}
	if r.Leaked > leaked {
		wrong = append(wrong, fmt.Sprintf("%d attempts leaked at the end", r.Leaked-leaked))
	}
	if r.OutsideFailures > 0 && r.Failed == 0 {
		wrong = append(wrong, "attempts of processes outside runs failed at the end")
	}
	if len(wrong) == 0 {
		return
	}
	last.Wrong = append(last.Wrong, wrong...)
	if last.Passed {
		last.Passed = false
		r.Passed--
		r.Failed++
	}
	fmt.Fprintf(r.out, "at the end: %s\n", strings.Join(wrong, "; "))
}

// OK reports whether everything has passed that was asked for.
func (r *Report) OK() bool { return r.Failed == 0 && r.Passed == r.n }

// Print writes the totals. The last line is the tally.
func (r *Report) Print(w io.Writer) {
	for _, l := range r.Leaks {
		fmt.Fprintf(w, "leaked: %s\n", l)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(w, "failed outside of runs: %s\n", f)
	}
	times := map[string]int{}
	for _, o := range r.Outcomes {
		times[o.Kind]++
	}
	var list []string
	for _, k := range kinds() {
		if n := times[k.name]; n > 0 {
			list = append(list, fmt.Sprintf("%s %d", k.name, n))
		}
	}
	fmt.Fprintf(w, "interruptions       %d in %.0f s: %s\n", len(r.Outcomes), r.Took.Seconds(), strings.Join(list, ", "))
	fmt.Fprintf(w, "attempts            %d\n", r.Attempts)
	fmt.Fprintf(w, "allowed received    %d\n", r.Allowed)
	fmt.Fprintf(w, "leaked              %d\n", r.Leaked)
	fmt.Fprintf(w, "non-agent failures  %d of %d attempts\n", r.OutsideFailures, r.OutsideAttempts)
	fmt.Fprintf(w, "runs                %d started, %d ended by interruptions\n", r.RunsStarted, r.RunsEnded)
	fmt.Fprintf(w, "%d passed, %d failed\n", r.Passed, r.Failed)
}

// writeJSON writes a report for programs.
func writeJSON(w io.Writer, report any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(report)
}
