package metrics

import (
	"context"

	"github.com/varvel/varvel/internal/decision"
)

// Recorder counts decisions on their way to the recorder that keeps them. A
// decision that is not kept counts as a denial, which is what becomes of it.
type Recorder struct {
	Next    decision.Recorder
	Metrics *Metrics
}

// Record implements decision.Recorder.
func (r Recorder) Record(ctx context.Context, q decision.Request, d decision.Decision, p decision.Promise) error {
	err := r.Next.Record(ctx, q, d, p)
	if err != nil {
		d.Effect, d.Reasons = decision.EffectDeny, []decision.Reason{{Rule: "audit.unavailable"}}
	}
	r.Metrics.Decision(q.Kind, d)
	return err
}
