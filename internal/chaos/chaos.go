package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrFailed means that something has failed, and that the report says what.
var ErrFailed = errors.New("not everything has passed")

var errInterrupted = errors.New("interrupted; everything that was started is gone")

// Interrupt interrupts, judges and prints. It is ErrFailed if anything has failed.
func Interrupt(ctx context.Context, o Options) error {
	r, err := run(ctx, o)
	if len(r.Outcomes) > 0 {
		r.Print(o.people())
		if o.JSON {
			err = errors.Join(err, writeJSON(o.Output, r))
		}
	}
	if err == nil && !r.OK() {
		err = ErrFailed
	}
	return err
}

// run interrupts and judges. The report is complete also if there is an error,
// which says why it could not go on to the end.
func run(ctx context.Context, o Options) (_ Report, err error) {
	r := Report{Seed: o.Seed, Began: time.Now(), out: o.people(), n: o.N}
	kinds, err := selectKinds(o.Only)
	if err != nil {
		return r, err
	}
	s, err := openSite(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.begin(ctx); err != nil {
		return r, err
	}
	possible := r.announce(s, kinds)
	if len(possible) == 0 {
		return r, errors.New("none of these interruptions is possible here")
	}
	err = s.series(ctx, &r, &schedule{kinds: possible})
	r.close(s, err)
	return r, err
}

// begin starts the runs and waits until every flow that is allowed arrives from
// each, and every flow from outsiders.
func (s *site) begin(ctx context.Context) error {
	if err := s.hire(ctx, s.options.Runs); err != nil {
		return err
	}
	if err := s.flow(ctx, 0, flowsWhere(func(f flow) bool { return f.allowed })...); err != nil {
		return err
	}
	var missing error
	err := s.until(ctx, "all that outsiders send arrives", func() (bool, error) {
		now, err := s.look()
		missing = now.controls()
		return missing == nil, err
	})
	return errors.Join(err, missing)
}

// series does one interruption after the other until there are enough or one
// leaves the node so that there is no sense in going on.
func (s *site) series(ctx context.Context, r *Report, turns *schedule) error {
	if s.options.leak {
		stop, err := s.openLeak(ctx)
		if err != nil {
			return err
		}
		defer stop()
	}
	before, err := s.look()
	for n := 1; n <= s.options.N && err == nil; n++ {
		var out Outcome
		k := turns.next(s.random)
		if out, before, err = s.interrupt(ctx, n, k, before); ctx.Err() != nil {
			return errInterrupted
		}
		r.add(out)
		if !out.Passed && err == nil {
			err = s.repair(ctx)
		}
	}
	return err
}

// interrupt does one interruption, waits until everything is well again, and
// judges. Only what makes it impossible to judge is an error.
func (s *site) interrupt(ctx context.Context, n int, k kind, before seen) (Outcome, seen, error) {
	begin, said := time.Now(), s.said()
	e := evidence{adopts: s.adopts}
	out := Outcome{N: n, Kind: k.name}
	e.err = inOrder(
		func() error { return k.do(s, ctx) },
		func() (err error) { e.kept, e.ended, err = s.reconcile(ctx); return err },
		func() (err error) { e.broken, err = s.broken(); return err },
		func() error { return s.hire(ctx, s.options.Runs) },
		func() error { return s.flow(ctx, 0, append(directFlows(), namedFlows()...)...) })
	now, err := s.look()
	if err != nil {
		return out, before, err
	}
	e.allowed = now.received() - before.received()
	e.leaked = now.Leaked - before.Leaked
	e.failures = now.outside.Failures - before.outside.Failures
	out.Wrong = judge(k.runs, e)
	if out.Passed = len(out.Wrong) == 0; !out.Passed {
		out.Log = s.complaints(said)
	}
	out.Allowed, out.Leaked, out.Kept, out.Ended, out.Took = e.allowed, e.leaked, e.kept, e.ended, time.Since(begin)
	return out, now, nil
}

// repair makes the node well after an interruption that has failed: with another
// daemon if need be, and with all runs new that are not listed.
func (s *site) repair(ctx context.Context) error {
	s.daemon.Bin = s.options.Bin
	check, cancel := context.WithTimeout(ctx, patience/6)
	defer cancel()
	if !s.daemon.Alive() || s.daemon.WaitReady(check) != nil {
		if err := inOrder(s.daemon.Kill, with(ctx, s.restart)); err != nil {
			return fmt.Errorf("the node does not recover: %w", err)
		}
	}
	if _, _, err := s.reconcile(ctx); err != nil {
		return err
	}
	return s.hire(ctx, s.options.Runs)
}

// openLeak starts a worker that is in no run but says that it is, so that
// everything it does that is not allowed is a leak.
func (s *site) openLeak(ctx context.Context) (stop func(), err error) {
	progress, err := os.Create(s.path("progress/leak"))
	if err != nil {
		return nil, err
	}
	defer progress.Close()
	ctx, cancel := context.WithCancel(ctx)
	cmd := command(ctx, job{label: s.runs[0].label, agent: alpha, pause: pauseBetween}.args()...)
	cmd.Stdout = progress
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	return func() { cancel(); _ = cmd.Wait() }, nil // it was killed
}
