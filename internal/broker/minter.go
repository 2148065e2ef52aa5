package broker

import (
	"context"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// MintRequest says for whom and for what a token is. All of it comes from the
// kernel and the configuration, nothing from the workload.
type MintRequest struct {
	Run      decision.Run
	Actor    decision.Actor
	Tool     string
	Audience string        // exactly one
	Lifetime time.Duration // an upper bound; a minter may give less
}

// Minter makes tokens. Mint returns a token that is for the audience of r
// alone, and when it expires: after now, and no later than r.Lifetime from
// now. It never returns the same token twice, it returns an error and an empty
// secret if it cannot do exactly that, and no error text holds a secret. It is
// safe for concurrent use and returns soon after ctx ends.
//
// brokertest.TestMinter holds an implementation to this.
type Minter interface {
	Mint(ctx context.Context, r MintRequest) (Secret, time.Time, error)
}
