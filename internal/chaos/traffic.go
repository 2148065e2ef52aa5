package chaos

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// pauseBetween is the pause between two attempts of a flow of a run.
const pauseBetween = 25 * time.Millisecond

// seen is everything that receivers and outsiders have counted up to a moment.
type seen struct {
	arrived
	outside outside
	made    uint64 // attempts of runs
}

// look asks everybody.
func (s *site) look() (now seen, err error) {
	if now.arrived, err = s.world.Ask(order{Of: s.labelsOfRuns()}); err != nil {
		return now, err
	}
	if now.outside, err = s.outside.Ask(order{}); err != nil {
		return now, err
	}
	now.made, err = s.attempts()
	return now, err
}

// received is how many allowed attempts of runs have arrived.
func (s seen) received() uint64 {
	var sum uint64
	for _, n := range s.Allowed {
		sum += n
	}
	return sum
}

// flow waits for a time, and then until some flows of every live run have
// arrived since it was called.
func (s *site) flow(ctx context.Context, least time.Duration, names ...string) error {
	before, err := s.world.Ask(order{Of: s.labelsOfRuns()})
	if err != nil {
		return err
	}
	sleep(ctx, least)
	var missing []string
	err = s.until(ctx, "traffic arrives", func() (bool, error) {
		now, err := s.world.Ask(order{Of: s.labelsOfRuns()})
		missing = nil
		for _, r := range s.runs {
			for _, name := range names {
				if now.From[r.label][name] <= before.From[r.label][name] {
					missing = append(missing, r.label+" "+name)
				}
			}
		}
		return len(missing) == 0, err
	})
	if len(missing) > 0 && err != nil {
		return fmt.Errorf("nothing arrived within %s of: %s", patience, strings.Join(missing, ", "))
	}
	return err
}

// away is how long something is interrupted: random, but until direct traffic
// of every run has arrived meanwhile.
func (s *site) away(ctx context.Context) error {
	return s.flow(ctx, s.pause(60*time.Millisecond, 400*time.Millisecond), directFlows()...)
}

// pause is a random time.
func (s *site) pause(least, most time.Duration) time.Duration {
	d := least + time.Duration(s.random.Int64N(int64(most-least)))
	if s.options.Quick {
		d /= 2
	}
	return d
}

// controls is an error that names what never reached its receiver even from
// outside: then that it did not arrive from a run shows nothing.
func (s seen) controls() error {
	var missing []string
	for _, f := range flows() {
		if s.Controls[f.name] == 0 {
			missing = append(missing, f.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not even from outside of runs arrived: %s", strings.Join(missing, ", "))
	}
	return nil
}
