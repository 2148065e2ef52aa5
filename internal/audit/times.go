package audit

import "time"

// times is the range of the times of some events, both included; zero if there
// are none. Events come roughly, but not exactly, in the order of their times.
type times struct{ since, until time.Time }

// note widens the range.
func (t *times) note(at time.Time) {
	if t.since.IsZero() || at.Before(t.since) {
		t.since = at
	}
	if at.After(t.until) {
		t.until = at
	}
}

func (t times) equal(u times) bool { return t.since.Equal(u.since) && t.until.Equal(u.until) }

func (t times) String() string {
	return t.since.Format(time.RFC3339Nano) + " to " + t.until.Format(time.RFC3339Nano)
}
