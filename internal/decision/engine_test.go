package decision

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

// parts is a policy, an approver and a recorder that do as the test says, and
// note in which order they were asked.
type parts struct {
	verdict    Verdict
	evalErr    error
	resolution Resolution
	askErr     error
	recordErr  error

	order     []string
	recorded  Decision
	promise   Promise
	abandoned string
}

func (p *parts) Evaluate(context.Context, Request) (Verdict, error) {
	p.order = append(p.order, "evaluate")
	return p.verdict, p.evalErr
}

func (p *parts) Ask(context.Context, Request, Verdict) (Resolution, error) {
	p.order = append(p.order, "ask")
	return p.resolution, p.askErr
}

func (p *parts) Abandon(_ context.Context, id, _ string) error {
	p.abandoned = id
	return nil
}

func (p *parts) Record(_ context.Context, _ Request, d Decision, promise Promise) error {
	p.order = append(p.order, "record")
	p.recorded, p.promise = d, promise
	return p.recordErr
}

func (p *parts) engine() *Engine {
	return &Engine{
		Evaluator: p, Approver: p, Recorder: p, NewID: func() string { return "dec_1" },
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
}

var need = &Need{Kind: FourEyes, Quorum: 1, Expires: time.Hour}

func TestDecide(t *testing.T) {
	boom := errors.New("boom")
	hold := Verdict{Effect: EffectHold, Need: need}
	for _, tt := range []struct {
		name    string
		parts   parts
		request Request
		effect  Effect
		rule    string
		err     error
	}{
		{name: "allow", parts: parts{verdict: Verdict{Effect: EffectAllow}}, effect: EffectAllow, rule: "none"},
		{name: "deny", parts: parts{verdict: Verdict{Effect: EffectDeny, Reasons: []Reason{{"r", "t"}}}}, effect: EffectDeny, rule: "r"},
		{name: "no answer", parts: parts{verdict: Verdict{Effect: EffectAllow}, evalErr: boom}, effect: EffectDeny, rule: "policy.error", err: boom},
		{name: "no effect", parts: parts{}, effect: EffectDeny, rule: "policy.error"},
		{name: "strange effect", parts: parts{verdict: Verdict{Effect: "Allow"}}, effect: EffectDeny, rule: "policy.error"},
		{name: "hold without need", parts: parts{verdict: Verdict{Effect: EffectHold}}, request: Request{Digest: "d"}, effect: EffectDeny, rule: "policy.error"},
		{name: "hold without digest", parts: parts{verdict: hold}, effect: EffectDeny, rule: "policy.unbound"},
		{name: "granted", parts: parts{verdict: hold, resolution: Resolution{Status: StatusGranted, ApprovalID: "a"}}, request: Request{Digest: "d"}, effect: EffectAllow, rule: "none"},
		{name: "pending", parts: parts{verdict: hold, resolution: Resolution{Status: StatusPending}}, request: Request{Digest: "d"}, effect: EffectHold, rule: "none"},
		{name: "refused", parts: parts{verdict: hold, resolution: Resolution{Status: StatusDenied}}, request: Request{Digest: "d"}, effect: EffectDeny, rule: "none"},
		{name: "used", parts: parts{verdict: hold, resolution: Resolution{Status: StatusUsed, Reason: Reason{"approval.used", "Once."}}}, request: Request{Digest: "d"}, effect: EffectDeny, rule: "approval.used"},
		{name: "strange status", parts: parts{verdict: hold, resolution: Resolution{Status: "ok"}}, request: Request{Digest: "d"}, effect: EffectDeny, rule: "none"},
		{name: "no approver", parts: parts{verdict: hold, askErr: boom}, request: Request{Digest: "d"}, effect: EffectDeny, rule: "approval.error", err: boom},
		{name: "not recorded", parts: parts{verdict: Verdict{Effect: EffectAllow}, recordErr: boom}, effect: EffectDeny, rule: "audit.unavailable", err: ErrNotRecorded},
		{name: "observe", parts: parts{verdict: Verdict{Effect: EffectDeny}}, request: Request{Run: Run{Mode: ModeObserve}}, effect: EffectAllow, rule: "none"},
		{name: "observe, not recorded", parts: parts{verdict: Verdict{Effect: EffectDeny}, recordErr: boom}, request: Request{Run: Run{Mode: ModeObserve}}, effect: EffectDeny, rule: "audit.unavailable", err: boom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := tt.parts.engine().Decide(context.Background(), tt.request)
			if d.Effect != tt.effect || d.Rule() != tt.rule || !errors.Is(err, tt.err) {
				t.Errorf("got %s by %s, %v; want %s by %s, %v", d.Effect, d.Rule(), err, tt.effect, tt.rule, tt.err)
			}
			if d.Allowed() != (tt.effect == EffectAllow) {
				t.Errorf("Allowed() = %v for %s", d.Allowed(), d.Effect)
			}
			if last := tt.parts.order[len(tt.parts.order)-1]; last != "record" || tt.parts.order[0] != "evaluate" {
				t.Errorf("the order was %v", tt.parts.order)
			}
		})
	}
}

func TestObserveKeepsWhatEnforceWouldSay(t *testing.T) {
	p := parts{verdict: Verdict{Effect: EffectHold, Need: need}}
	d, err := p.engine().Decide(context.Background(), Request{Digest: "d", Run: Run{Mode: ModeObserve}})
	if err != nil || d.Effect != EffectAllow || d.Would != EffectHold || p.recorded.Would != EffectHold {
		t.Errorf("got %+v, %v; recorded %+v", d, err, p.recorded)
	}
	if len(p.order) != 2 {
		t.Errorf("an observed agent's hold asked somebody: %v", p.order)
	}
}

func TestUnrecordedGrantIsAbandoned(t *testing.T) {
	p := parts{
		verdict: Verdict{Effect: EffectHold, Need: need}, recordErr: errors.New("full"),
		resolution: Resolution{Status: StatusGranted, ApprovalID: "apr_1"},
	}
	if d, _ := p.engine().Decide(context.Background(), Request{Digest: "d"}); d.Allowed() || p.abandoned != "apr_1" {
		t.Errorf("got %+v, abandoned %q", d, p.abandoned)
	}
}

func TestCallerGoneIsStillRecorded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p := parts{verdict: Verdict{Effect: EffectAllow}}
	if d, err := p.engine().Decide(ctx, Request{}); err != nil || p.recorded.ID != d.ID {
		t.Errorf("got %+v, %v, recorded %+v", d, err, p.recorded)
	}
}

func TestPromiseFor(t *testing.T) {
	for _, tt := range []struct {
		r    Request
		e    Effect
		want Promise
	}{
		{Request{Kind: KindHTTP, Risk: RiskRead}, EffectAllow, Appended},
		{Request{Kind: KindHTTP, Risk: RiskWrite}, EffectAllow, Durable},
		{Request{Kind: KindHTTP, Risk: RiskIrreversible}, EffectAllow, Durable},
		{Request{Kind: KindHTTP, Risk: RiskIrreversible}, EffectHold, Durable},
		{Request{Kind: KindHTTP, Risk: RiskIrreversible}, EffectDeny, Appended},
		{Request{Kind: KindHTTP}, EffectAllow, Durable},
		{Request{Kind: KindConnect}, EffectAllow, Appended},
		{Request{Kind: KindCredential, Risk: RiskRead}, EffectAllow, Durable},
		{Request{Kind: KindCredential}, EffectDeny, Appended},
	} {
		if got := PromiseFor(tt.r, Decision{Effect: tt.e}); got != tt.want {
			t.Errorf("%s %s %s: promise %d, want %d", tt.r.Kind, tt.r.Risk, tt.e, got, tt.want)
		}
	}
}
