package policy

import (
	"context"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/decision"
)

// TestAnswersOfTheWrongForm replaces the whole policy by one that answers in a
// form of its own.
func TestAnswersOfTheWrongForm(t *testing.T) {
	good := `"reasons": [{"rule": "a", "text": "b"}], "obligations": []`
	need := `"kind": "four-eyes", "groups": [], "quorum": 1, "expires_seconds": 0, "exclude": []`
	tests := []struct{ name, rego, want string }{
		{"undefined", `decision := 1 if input.kind == "connect"`, "no value"},
		{"two values", `decision := x if some x in [{"effect": "allow"}, {"effect": "deny"}]`, "conflicting values"},
		{"boolean", `decision := true`, "boolean where an object"},
		{"set of one", `decision := {{"effect": "allow", ` + good + `}}`, "set where an object"},
		{"partial set", `decision contains {"effect": "allow", ` + good + `}`, "set where an object"},
		{"unknown effect", `decision := {"effect": "permit", ` + good + `}`, "not allow, deny or hold"},
		{"effect in capitals", `decision := {"effect": "Allow", ` + good + `}`, "not allow, deny or hold"},
		{"effect is true", `decision := {"effect": true, ` + good + `}`, "effect: boolean"},
		{"no effect", `decision := {` + good + `}`, "effect is missing"},
		{"no reasons", `decision := {"effect": "allow", "obligations": []}`, "reasons is missing"},
		{"empty reasons", `decision := {"effect": "allow", "reasons": [], "obligations": []}`, "reasons is empty"},
		{"no obligations", `decision := {"effect": "allow", "reasons": [{"rule": "a", "text": "b"}]}`, "obligations is missing"},
		{"obligation with more", `decision := {"effect": "allow", "reasons": [{"rule": "a", "text": "b"}], "obligations": [{"name": "x", "value": "", "y": 1}]}`, "unknown fields"},
		{"more fields", `decision := {"effect": "allow", "allow": true, ` + good + `}`, "unknown fields"},
		{"field that is no string", `decision := {"effect": "allow", 1: 2, ` + good + `}`, "unknown fields"},
		{"reasons is a set", `decision := {"effect": "allow", "reasons": {{"rule": "a", "text": "b"}}, "obligations": []}`, "reasons is not a list"},
		{"hold without need", `decision := {"effect": "hold", ` + good + `}`, "need must be present"},
		{"allow with need", `decision := {"effect": "allow", ` + good + `, "need": {` + need + `}}`, "need must be present"},
		{"need without quorum", `decision := {"effect": "hold", ` + good + `, "need": {"kind": "confirm", "groups": [], "expires_seconds": 1, "exclude": []}}`, "quorum is missing"},
		{"need of unknown kind", `decision := {"effect": "hold", ` + good + `, "need": {"kind": "any", "groups": [], "quorum": 1, "expires_seconds": 1, "exclude": []}}`, "not four-eyes or confirm"},
		{"one person twice", `decision := {"effect": "hold", ` + good + `, "need": {"kind": "confirm", "groups": [], "quorum": 2, "expires_seconds": 1, "exclude": []}}`, "quorum must be 1"},
		{"nobody", `decision := {"effect": "hold", ` + good + `, "need": {"kind": "four-eyes", "groups": [], "quorum": 0, "expires_seconds": 1, "exclude": []}}`, "from 1 to 16"},
		{"group is a number", `decision := {"effect": "hold", ` + good + `, "need": {"kind": "four-eyes", "groups": [1], "quorum": 1, "expires_seconds": 1, "exclude": []}}`, "groups, element 0"},
		{"part of a second", `decision := {"effect": "hold", ` + good + `, "need": {"kind": "four-eyes", "groups": [], "quorum": 1, "expires_seconds": 1.5, "exclude": []}}`, "whole number"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := engineOf(t, test.rego)
			v, err := e.Evaluate(context.Background(), request(decision.KindHTTP, nil))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error with %q", v, err, test.want)
			}
		})
	}
}

// TestAnswerOfTheRightForm is the control of the test above.
func TestAnswerOfTheRightForm(t *testing.T) {
	e := engineOf(t, `decision := {"effect": "allow", "reasons": [{"rule": "a", "text": "b"}], "obligations": [{"name": "c", "value": "d"}]}`)
	v, err := e.Evaluate(context.Background(), request(decision.KindHTTP, nil))
	if err != nil || v.Effect != decision.EffectAllow || v.Obligations[0] != (decision.Obligation{Name: "c", Value: "d"}) {
		t.Errorf("got %v, %v", v, err)
	}
}

// engineOf returns an engine whose whole policy is text.
func engineOf(t *testing.T, text string) *Engine {
	t.Helper()
	p, err := prepare(context.Background(), []module{{name: "only.rego", file: "only.rego", text: "package varvel\n" + text}})
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{cfg: Config{Log: quiet()}, steps: maxSteps}
	e.current.Store(p)
	return e
}
