package policy

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// bare is what an action costs with no policy at all: the call.
type bare struct{}

func (bare) Abandon(context.Context, string, string) error { return nil }

func (bare) Evaluate(context.Context, decision.Request) (decision.Verdict, error) {
	return decision.Verdict{Effect: decision.EffectAllow}, nil
}

func (bare) Record(context.Context, decision.Request, decision.Decision, decision.Promise) error {
	return nil
}

func (bare) Ask(context.Context, decision.Request, decision.Verdict) (decision.Resolution, error) {
	return decision.Resolution{}, errors.New("nobody is here")
}

var benchmarkKinds = []struct {
	name string
	kind decision.Kind
	risk decision.Risk
}{
	{"connect", decision.KindConnect, decision.RiskRead},
	{"credential", decision.KindCredential, decision.RiskRead},
	{"http-read", decision.KindHTTP, decision.RiskRead},
	{"http-hold", decision.KindHTTP, decision.RiskIrreversible},
}

// BenchmarkEvaluate reports what an evaluation costs, also as a ratio to a
// function call through the same interface.
func BenchmarkEvaluate(b *testing.B) {
	for _, k := range benchmarkKinds {
		b.Run(k.name, func(b *testing.B) {
			r := request(k.kind, func(r *decision.Request) { r.Risk = k.risk })
			base := timeOf(b, bare{}, r)
			e := newEngine(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Evaluate(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/base, "x-call")
		})
	}
}

// BenchmarkDecide is the whole engine with a recorder that does nothing. The
// ratio is to the same engine with an evaluator that does nothing.
func BenchmarkDecide(b *testing.B) {
	for _, k := range benchmarkKinds[:3] {
		b.Run(k.name, func(b *testing.B) {
			r := request(k.kind, func(r *decision.Request) { r.Risk = k.risk })
			base := timeOf(b, deciding{engine(bare{})}, r)
			e := engine(newEngine(b))
			b.ReportAllocs()
			for b.Loop() {
				if d, err := e.Decide(b.Context(), r); err != nil || !d.Allowed() {
					b.Fatal(d, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/base, "x-bare")
		})
	}
}

func engine(e decision.Evaluator) *decision.Engine {
	return &decision.Engine{
		Evaluator: e, Approver: bare{}, Recorder: bare{}, Now: time.Now,
		NewID: func() string { return "dec_01" }, Log: slog.New(slog.DiscardHandler),
	}
}

// deciding lets timeOf measure an engine.
type deciding struct{ *decision.Engine }

func (d deciding) Evaluate(ctx context.Context, r decision.Request) (decision.Verdict, error) {
	_, err := d.Decide(ctx, r)
	return decision.Verdict{}, err
}

// timeOf returns the nanoseconds of one call.
func timeOf(b *testing.B, e decision.Evaluator, r decision.Request) float64 {
	const rounds = 200_000
	start := time.Now()
	for range rounds {
		if _, err := e.Evaluate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	return float64(time.Since(start)) / rounds
}
