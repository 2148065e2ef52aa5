package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/policy"
)

// nothing is what an action costs without a policy, a person or a log: the calls.
type nothing struct{}

func (nothing) Evaluate(context.Context, decision.Request) (decision.Verdict, error) {
	return decision.Verdict{Effect: decision.EffectAllow}, nil
}

func (nothing) Record(context.Context, decision.Request, decision.Decision, decision.Promise) error {
	return nil
}

func (nothing) Ask(context.Context, decision.Request, decision.Verdict) (decision.Resolution, error) {
	return decision.Resolution{}, errors.New("nobody is here")
}

func (nothing) Abandon(context.Context, string, string) error { return nil }

func engineWith(e decision.Evaluator) *decision.Engine {
	return &decision.Engine{
		Evaluator: e, Approver: nothing{}, Recorder: nothing{}, Now: time.Now,
		NewID: func() string { return "dec_01" }, Log: slog.New(slog.DiscardHandler),
	}
}

// sampleRequest is a call of a tool that the default policy allows.
func sampleRequest() decision.Request {
	return decision.Request{
		Kind:  decision.KindHTTP,
		Run:   decision.Run{ID: "run_01", Agent: "billing-bot", Owner: "finance", Mode: decision.ModeEnforce},
		Actor: decision.Actor{Account: "spiffe://bench.test/agent/billing-bot", StartedBy: &decision.LocalUser{UID: 1000, Name: "ann"}},
		Tool:  "ledger", Action: "accounts.read", Risk: decision.RiskRead,
		Target: decision.Target{Name: "ledger.bench.test", Port: 443, Protocol: "tcp"},
		HTTP:   &decision.HTTP{Method: "GET", Authority: "ledger.bench.test", Path: "/v1/accounts"},
		Digest: "sha256:00", Threshold: 1, Time: time.Now(),
	}
}

// decide measures the decision engine with the shipped policy.
func decide(ctx context.Context, s *site, _ names) ([]Result, error) {
	real, err := policy.New(policy.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	once := func(e *decision.Engine) func(int) ([]float64, error) {
		const n = 200
		return func(int) ([]float64, error) {
			ns, err := perOp(n, wallClock, func() error { return decideTimes(ctx, e, n) })
			if err != nil {
				return nil, err
			}
			return []float64{ns[0] / 1000}, nil
		}
	}
	series, err := interleave(ctx, s.rounds(100), []side{
		{"policy", once(engineWith(real))}, {"nothing", once(engineWith(nothing{}))},
	})
	if err != nil {
		return nil, err
	}
	r := compare("decide", "us", "the same engine with a policy that is one Go function", series["policy"][0], series["nothing"][0])
	r.Note = "an HTTP request with risk read; the log is not part of it"
	return []Result{r}, nil
}

func decideTimes(ctx context.Context, e *decision.Engine, n int) error {
	r := sampleRequest()
	for range n {
		if d, err := e.Decide(ctx, r); err != nil || !d.Allowed() {
			return fmt.Errorf("the policy did not allow a read: %v: %w", d.Effect, err)
		}
	}
	return nil
}

// auditAppend measures the log against a bare file in the same folder.
func auditAppend(ctx context.Context, s *site, _ names) (_ []Result, err error) {
	log, err := audit.Open(s.path("audit"), audit.Options{Node: "bench", Boot: "bench", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	file, err := os.Create(s.path("bare"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	event := audit.FromDecision(sampleRequest(), decision.Decision{ID: "dec_01", Effect: decision.EffectAllow})
	// As many bytes as the log writes for this event.
	before := log.Stats().Bytes
	if err := log.Append(ctx, clone(event), decision.Durable); err != nil {
		return nil, err
	}
	bytes := make([]byte, log.Stats().Bytes-before)
	var results []Result
	for _, v := range []struct {
		figure, against string
		promise         decision.Promise
		n               int
		rounds          int
	}{
		{"audit_append", "write and fsync of as many bytes", decision.Durable, 10, 60},
		{"audit_append_appended", "write of as many bytes", decision.Appended, 500, 60},
	} {
		series, err := interleave(ctx, s.rounds(v.rounds), []side{
			{"log", micros(v.n, func() error { return log.Append(ctx, clone(event), v.promise) })},
			{"file", micros(v.n, func() error { return writeBare(file, bytes, v.promise) })},
		})
		if err != nil {
			return results, err
		}
		r := compare(v.figure, "us", v.against, series["log"][0], series["file"][0])
		r.Note = fmt.Sprintf("%d bytes, one writer", len(bytes))
		results = append(results, r)
	}
	return results, nil
}

func clone(e audit.Event) *audit.Event { return &e }

func micros(n int, do func() error) func(int) ([]float64, error) {
	return func(int) ([]float64, error) {
		ns, err := perOp(n, wallClock, func() error {
			for range n {
				if err := do(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return []float64{ns[0] / 1000}, nil
	}
}

func writeBare(f *os.File, b []byte, p decision.Promise) error {
	if _, err := f.Write(b); err != nil || p != decision.Durable {
		return err
	}
	return f.Sync()
}
