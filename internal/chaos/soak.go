package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// leastSoak is the shortest soak that has enough samples.
const leastSoak = time.Minute

// Pauses and lives of the runs of a soak.
const (
	soakPause = 6 * time.Second
	shortLife = 20 * time.Second
	longLife  = 60 * time.Second
)

// SoakReport is what a soak has shown.
type SoakReport struct {
	Seed            uint64   `json:"seed"`
	Samples         []sample `json:"samples"`
	Checks          []check  `json:"checks"`
	Runs            uint64   `json:"runs"` // that were started
	RunsFailed      uint64   `json:"runs_failed"`
	Attempts        uint64   `json:"attempts"`
	Allowed         uint64   `json:"allowed_received"`
	Leaked          uint64   `json:"leaked"`
	OutsideFailures uint64   `json:"non_agent_failures"`
}

// check is one thing that had to be.
type check struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail"`
}

// Soak starts and ends runs for a time, many at once, and judges whether what
// the daemon uses stays flat. It is ErrFailed if not.
func Soak(ctx context.Context, o Options) (err error) {
	s, err := openSite(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if failed := s.Close(); failed != nil {
			err = errors.Join(err, failed)
		}
	}()
	out := o.people()
	r := SoakReport{Seed: o.Seed}
	fmt.Fprintf(out, "# seed %d, %d runs at a time, each for %s to %s, for %s\n", o.Seed, o.Runs, shortLife, longLife, o.Soak)
	c := &churn{site: s}
	if r.Samples, err = c.soak(ctx, out); err != nil {
		return err
	}
	if err := r.judge(c); err != nil {
		return err
	}
	r.print(out)
	if o.JSON {
		err = writeJSON(o.Output, r)
	}
	if err == nil && r.failed() > 0 {
		err = ErrFailed
	}
	return err
}

// churn keeps up a number of runs that end and are followed by others.
type churn struct {
	site   *site
	mu     sync.Mutex // over what follows and the site's labels and totals
	failed uint64
	first  error
}

// soak churns for the time that is asked for, and takes samples.
func (c *churn) soak(ctx context.Context, out io.Writer) ([]sample, error) {
	o := c.site.options
	churning, stop := context.WithTimeout(ctx, o.Soak)
	defer stop()
	var group sync.WaitGroup
	for i := range o.Runs {
		group.Go(func() {
			// Not all at once: a run each 100 ms.
			sleep(churning, time.Duration(i)*100*time.Millisecond)
			for churning.Err() == nil {
				c.one(churning)
			}
		})
	}
	samples, err := c.site.sampleUntil(churning, min(10*time.Second, o.Soak/24), out)
	stop()
	group.Wait()
	return samples, errors.Join(err, ctx.Err(), c.first)
}

// one is one run from its start to its end, which is at the latest when the soak
// is over.
func (c *churn) one(ctx context.Context) {
	c.mu.Lock()
	s := c.site
	life := shortLife + time.Duration(s.random.Int64N(int64(longLife-shortLife)))
	j := s.newJob(soakPause, life)
	s.before.started++
	c.mu.Unlock()
	r, err := s.launch(ctx, j)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = r.cli.Process.Signal(syscall.SIGTERM) }) // it may have ended
		<-r.ended
		stop()
	}
	if err != nil || !r.cli.ProcessState.Success() {
		sleep(ctx, time.Second) // or else failures would be all that happens
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		if !r.cli.ProcessState.Success() && ctx.Err() == nil { // at the end, some are told to end while they start
			c.failed++
		}
		err = s.bury(r)
	}
	if c.first == nil {
		c.first = err
	}
}

// judge makes a check of everything.
func (r *SoakReport) judge(c *churn) error {
	now, err := c.site.look()
	if err != nil {
		return err
	}
	r.Runs, r.RunsFailed, r.Attempts = c.site.before.started, c.failed, now.made
	r.Allowed, r.Leaked, r.OutsideFailures = now.received(), now.Leaked, now.outside.Failures
	for _, m := range measures() {
		r.Checks = append(r.Checks, m.flat(r.Samples))
	}
	is := func(name string, passed bool, detail string, args ...any) {
		r.Checks = append(r.Checks, check{name, passed, fmt.Sprintf(detail, args...)})
	}
	is("churn", r.Runs > uint64(c.site.options.Runs), "%d runs started", r.Runs)
	is("runs failed", r.RunsFailed == 0, "%d: %s%s", r.RunsFailed, c.site.tail("runs.log"), c.site.errorsOfDaemon())
	is("allowed received", r.Allowed > 0, "%d of %d attempts", r.Allowed, r.Attempts)
	is("leaked", r.Leaked == 0, "%d%s", r.Leaked, told(now.First))
	is("non-agent failures", r.OutsideFailures == 0, "%d of %d attempts", r.OutsideFailures, now.outside.Attempts)
	left := "nothing"
	if err = c.site.finish(); err != nil {
		left = err.Error()
	}
	is("left behind", err == nil, "%s", left)
	return nil
}

// errorsOfDaemon are the first errors that the daemon has logged, a line each.
func (s *site) errorsOfDaemon() string {
	raw, err := os.ReadFile(s.daemon.Log)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	n := 0
	for line := range strings.Lines(string(raw)) {
		if n < maxTold && strings.Contains(line, "level=ERROR") {
			n++
			fmt.Fprintf(&b, "\n      varveld: %s", strings.TrimSpace(line))
		}
	}
	return b.String()
}

// told is the first leaks, a line each.
func told(leaks []leak) string {
	var b strings.Builder
	for _, l := range leaks {
		fmt.Fprintf(&b, "\n      %s %s", l.Time.Format(time.TimeOnly), l)
	}
	return b.String()
}

func (r *SoakReport) failed() (n int) {
	for _, c := range r.Checks {
		if !c.Passed {
			n++
		}
	}
	return n
}

// print writes the checks. The last line is the tally.
func (r *SoakReport) print(w io.Writer) {
	for _, c := range r.Checks {
		mark := "ok  "
		if !c.Passed {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "%s  %-18s  %s\n", mark, c.Name, c.Detail)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", len(r.Checks)-r.failed(), r.failed())
}
