package policy

import (
	"context"
	"errors"
	"time"
)

// Bounds of one evaluation. The first is what ends a rule that loops over too
// much: it depends on the request and the policy only, so that a busy machine
// denies nothing that an idle one allows. It is a quarter of a second of work
// or so. The second is for steps that are very slow.
const (
	maxSteps = 500_000
	maxTime  = 5 * time.Second
)

var (
	errSteps = errors.New("more steps than are allowed; look for a rule that loops over too much")
	errTime  = errors.New("more time than is allowed; look for a rule that works on very long values")
)

// budget ends an evaluation that goes on for too long. It implements
// topdown.Cancel, which OPA asks between the steps of an evaluation, from the
// goroutine that evaluates.
type budget struct {
	ctx   context.Context
	steps int
	until time.Time
	spent error // why the evaluation was ended
}

func newBudget(ctx context.Context, steps int) *budget {
	return &budget{ctx: ctx, steps: steps, until: time.Now().Add(maxTime)}
}

// Cancel is part of topdown.Cancel. Only the budget itself ends an evaluation.
func (b *budget) Cancel() {}

// Cancelled counts a step and reports whether it is one too many.
func (b *budget) Cancelled() bool {
	if b.spent != nil {
		return true
	}
	b.steps--
	switch {
	case b.steps < 0:
		b.spent = errSteps
	case b.steps%1024 != 0:
	case b.ctx.Err() != nil:
		b.spent = context.Cause(b.ctx)
	case time.Now().After(b.until):
		b.spent = errTime
	}
	return b.spent != nil
}
