package chaos

import (
	"fmt"
	"time"
)

// evidence is what was seen in an interruption: from the end of the one before
// until all that is allowed works again.
type evidence struct {
	allowed  uint64 // allowed attempts of runs that arrived
	leaked   uint64
	failures uint64 // of outsiders
	kept     int    // runs that were there before and still are
	ended    int    // runs that were there before and are no more
	broken   uint64 // kept connections of the runs that still are
	adopts   bool   // the next daemon adopts runs, so they have to outlive this one
	err      error  // what could not be done or did not come back
}

// judge says what is wrong with an interruption; nothing: it has passed.
func judge(runs survival, e evidence) []string {
	var wrong []string
	is := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	is(e.err != nil, "%v", e.err)
	is(e.allowed == 0, "nothing allowed arrived")
	is(e.leaked > 0, "%d attempts leaked", e.leaked)
	is(e.failures > 0, "%d attempts of processes outside runs failed", e.failures)
	if runs == survive || runs == adopted && e.adopts {
		is(e.ended > 0, "%d runs ended that should have gone on", e.ended)
		is(e.broken > 0, "%d connections broke that should have held", e.broken)
	}
	is(runs == ended && e.kept > 0, "%d runs went on that nobody had kept", e.kept)
	return wrong
}

// Outcome is what has become of one interruption.
type Outcome struct {
	N       int           `json:"n"`
	Kind    string        `json:"kind"`
	Passed  bool          `json:"passed"`
	Wrong   []string      `json:"wrong,omitempty"`
	Log     []string      `json:"log,omitempty"` // of the daemons meanwhile, if it has failed: the last that is more than information
	Allowed uint64        `json:"allowed_received"`
	Leaked  uint64        `json:"leaked"`
	Kept    int           `json:"runs_kept"`
	Ended   int           `json:"runs_ended"`
	Took    time.Duration `json:"took_ns"`
}
