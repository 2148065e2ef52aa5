package chaos

import (
	"errors"
	"io"
	"os"
	"time"
)

// Options say what to do.
type Options struct {
	Bin    string // folder with varveld and varvel
	Other  string // folders with other builds of both, with commas; "": none
	Only   string // names of kinds, with commas; "": all
	N      int    // interruptions
	Seed   uint64
	Runs   int           // at the same time; 0: the usual number
	Quick  bool          // shorter interruptions
	Soak   time.Duration // of a soak
	JSON   bool          // Output gets the report as JSON, and people read standard error
	Output io.Writer

	leak bool // for tests: makes a worker outside of runs look like one inside
}

// The usual numbers of runs.
const (
	usualRuns = 4
	soakRuns  = 200
)

// Check completes the options.
func (o *Options) Check() error {
	if _, err := selectKinds(o.Only); err != nil {
		return err
	}
	if o.Runs == 0 {
		o.Runs = usualRuns
		if o.Soak > 0 {
			o.Runs = soakRuns
		}
	}
	if o.N < 1 || o.Runs < 2 {
		return errors.New("there have to be at least 1 interruption and 2 runs, one of each agent")
	}
	if o.Soak != 0 && o.Soak < leastSoak {
		return errors.New("a soak of less than " + leastSoak.String() + " shows nothing")
	}
	return nil
}

// people is where lines for people go.
func (o *Options) people() io.Writer {
	if o.JSON {
		return os.Stderr
	}
	return o.Output
}
