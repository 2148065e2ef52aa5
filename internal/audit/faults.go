package audit

import (
	"errors"
	"fmt"
)

// What keeps the log from taking an event. Each is wrapped in a sentence.
var (
	errFull    = errors.New("the audit log has no disk space left")
	errLow     = errors.New("the audit log's disk space is down to the reserve")
	errStalled = errors.New("the audit log's disk does not answer")
	errBroken  = errors.New("the audit log is broken")
	errClosed  = errors.New("the audit log is closed")
	errQueue   = errors.New("too many events wait for the audit log")
)

// broken wraps the first error after which nothing more is written.
func brokenBy(what string, err error) error {
	return fmt.Errorf("%w: %s: %w. Nothing more is recorded, and what needs a record does not happen. Look at the disk, run `varvel audit verify`, then restart varveld", errBroken, what, err)
}
