package policy

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// request returns a request that the default policy knows, changed by change.
func request(kind decision.Kind, change func(*decision.Request)) decision.Request {
	r := decision.Request{
		ID:    "dec_01",
		Kind:  kind,
		Run:   decision.Run{ID: "run_01", Agent: "billing-bot", Owner: "finance", Mode: decision.ModeEnforce},
		Actor: decision.Actor{Account: "spiffe://example.org/agent/billing-bot", StartedBy: &decision.LocalUser{UID: 1000, Name: "ann"}},
		Tool:  "stripe", Action: "charges.read", Risk: decision.RiskRead,
		Target:    decision.Target{Name: "api.stripe.com", Port: 443, Protocol: "tcp"},
		Threshold: 1,
		Digest:    "sha256:00",
		Time:      time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
	switch kind {
	case decision.KindHTTP:
		r.HTTP = &decision.HTTP{Method: "GET", Authority: "api.stripe.com", Path: "/v1/charges"}
	case decision.KindCredential:
		r.Credential = &decision.Credential{Audience: "https://api.stripe.com", Lifetime: 5 * time.Minute}
	case decision.KindConnect:
		r.Tool, r.Action = "", "connect"
	}
	if change != nil {
		change(&r)
	}
	return r
}

func newEngine(t testing.TB, dirs ...string) *Engine {
	t.Helper()
	e, err := New(Config{Dirs: dirs, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestDefaultPolicy(t *testing.T) {
	risk := func(risk decision.Risk) func(*decision.Request) {
		return func(r *decision.Request) { r.Risk = risk }
	}
	sure := func(value float64, source string, threshold float64) func(*decision.Request) {
		return func(r *decision.Request) {
			r.Risk, r.Threshold = decision.RiskWrite, threshold
			r.Confidence = &decision.Confidence{Value: value, Source: source}
		}
	}
	const allow, deny, hold = decision.EffectAllow, decision.EffectDeny, decision.EffectHold
	tests := []struct {
		name   string
		kind   decision.Kind
		change func(*decision.Request)
		effect decision.Effect
		rule   string
	}{
		{"read", decision.KindHTTP, nil, allow, "http.read"},
		{"write", decision.KindHTTP, risk(decision.RiskWrite), hold, "http.write.unsure"},
		{"write, history is sure", decision.KindHTTP, sure(0.9, "history", 0.9), allow, "http.write.confident"},
		{"write, history is not sure enough", decision.KindHTTP, sure(0.89, "history", 0.9), hold, "http.write.unsure"},
		{"write, the operator is sure", decision.KindHTTP, sure(1, "operator", 1), allow, "http.write.confident"},
		{"write, the agent says it is sure", decision.KindHTTP, sure(1, "agent", 0.1), hold, "http.write.unsure"},
		{"write, no threshold to reach", decision.KindHTTP, func(r *decision.Request) { r.Risk, r.Threshold = decision.RiskWrite, 0 }, allow, "http.write.confident"},
		{"irreversible", decision.KindHTTP, risk(decision.RiskIrreversible), hold, "http.irreversible"},
		{"irreversible, whatever the confidence", decision.KindHTTP, func(r *decision.Request) {
			sure(1, "operator", 0)(r)
			r.Risk = decision.RiskIrreversible
		}, hold, "http.irreversible"},
		{"unknown risk", decision.KindHTTP, risk(decision.RiskUnknown), deny, "http.no-risk"},
		{"no action", decision.KindHTTP, func(r *decision.Request) { r.Action = "" }, deny, "http.no-action"},
		{"no tool", decision.KindHTTP, func(r *decision.Request) { r.Tool = "" }, deny, "http.no-tool"},
		{"token", decision.KindCredential, nil, allow, "credential.tool"},
		{"token for no tool", decision.KindCredential, func(r *decision.Request) { r.Tool = "" }, deny, "credential.no-tool"},
		{"listed destination", decision.KindConnect, nil, allow, "connect.listed"},
		{"destination with another risk", decision.KindConnect, risk(decision.RiskWrite), deny, "connect.risk"},
	}
	e := newEngine(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := e.Evaluate(context.Background(), request(test.kind, test.change))
			if err != nil {
				t.Fatal(err)
			}
			if v.Effect != test.effect || v.Reasons[0].Rule != test.rule {
				t.Errorf("got %s by %s, want %s by %s", v.Effect, v.Reasons[0].Rule, test.effect, test.rule)
			}
			if (v.Need != nil) != (v.Effect == hold) {
				t.Errorf("need is %v", v.Need)
			}
			if v.Revision != e.Revision() || v.Reasons[0].Text == "" {
				t.Errorf("revision %q, text %q", v.Revision, v.Reasons[0].Text)
			}
		})
	}
}
