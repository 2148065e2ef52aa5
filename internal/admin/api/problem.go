package api

import (
	"fmt"

	"github.com/varvel/varvel/internal/config"
)

// ContentTypeProblem is the media type of a Problem (RFC 9457 section 6.1).
const ContentTypeProblem = "application/problem+json"

// Codes of problems. They are stable.
const (
	CodePeerUnknown  = "peer-unknown"   // the kernel does not say who connected
	CodePeerInRun    = "peer-in-run"    // the peer's process is in a run
	CodeRole         = "role-missing"   // the peer has none of the roles that are needed
	CodeBadRequest   = "bad-request"    // the request is not what it has to be
	CodeNotFound     = "not-found"      // there is no such route, run or approval
	CodeNotOpen      = "not-open"       // the approval is resolved already
	CodeNotAllowed   = "not-allowed"    // this person may not vote on this approval
	CodeStale        = "stale"          // the approval is not what was shown
	CodeInvalid      = "config-invalid" // the configuration on disk is not valid
	CodeInternal     = "internal"       // it failed; the daemon's log says why
	CodeTooMany      = "too-many"       // a limit of connections or streams
	CodeNotAvailable = "not-available"  // this daemon does not offer it
)

// Problem is how the API says no (RFC 9457): what happened, why, and what to do.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Hint   string `json:"hint,omitempty"`
	// Problems lists what is wrong with a configuration.
	Problems []config.Problem `json:"problems,omitempty"`
}

// Error returns the detail.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("the daemon answered %d", p.Status)
	}
	return p.Detail
}
