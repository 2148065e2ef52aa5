package policy

import (
	"encoding/json"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/policy"
)

// validate checks a document against the input's schema with OPA's own
// validator, which policies cannot call.
func validate(t *testing.T, document any) bool {
	t.Helper()
	var schema any
	if err := json.Unmarshal(policy.InputSchema, &schema); err != nil {
		t.Fatal(err)
	}
	results, err := rego.New(
		rego.Query("json.match_schema(input.document, input.schema)"),
		rego.Input(map[string]any{"document": document, "schema": schema}),
	).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer := results[0].Expressions[0].Value.([]any)
	if answer[0] != true {
		t.Logf("schema: %v", answer[1])
	}
	return answer[0] == true
}

func everything(r *decision.Request) {
	r.Actor.Person = &decision.Person{Issuer: "https://login.example.org", Subject: "42"}
	r.Confidence = &decision.Confidence{Value: 0.25, Source: "history"}
	r.Threshold = 0.5
	r.ApprovalKind = decision.Confirm
	r.Target.Address = netip.MustParseAddr("2001:db8::1")
	r.Actor.StartedBy.UID = math.MaxUint32
	if r.HTTP != nil {
		r.HTTP.Query, r.HTTP.BodySize = "a=1&b=%00", math.MaxInt64
	}
}

func nothing(r *decision.Request) {
	r.Tool, r.Action, r.Risk, r.Threshold = "", "", "", 0
	r.Actor.StartedBy, r.Target = nil, decision.Target{}
	if r.HTTP != nil {
		r.HTTP.BodySize = -1
	}
	if r.Credential != nil {
		r.Credential.Lifetime = time.Nanosecond
	}
}

func TestInputMatchesItsSchema(t *testing.T) {
	for _, kind := range []decision.Kind{decision.KindConnect, decision.KindHTTP, decision.KindCredential} {
		for name, change := range map[string]func(*decision.Request){"usual": nil, "everything": everything, "nothing": nothing} {
			t.Run(string(kind)+"/"+name, func(t *testing.T) {
				document := input(t, request(kind, change))
				if !validate(t, document) {
					t.Errorf("%v does not match", document)
				}
			})
		}
	}
}

func input(t *testing.T, r decision.Request) map[string]any {
	t.Helper()
	value, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	document, err := ast.JSON(value)
	if err != nil {
		t.Fatal(err)
	}
	return document.(map[string]any)
}

// TestSchemaIsStrict is the control: whatever is taken away or added, the
// schema sees it.
func TestSchemaIsStrict(t *testing.T) {
	fresh := func() map[string]any { return input(t, request(decision.KindHTTP, everything)) }
	for name := range fresh() {
		if name == "http" || name == "confidence" {
			continue // optional
		}
		document := fresh()
		delete(document, name)
		if validate(t, document) {
			t.Errorf("matches without %s", name)
		}
	}
	for name, value := range fresh() {
		document := fresh()
		document["more"] = 1
		if part, ok := value.(map[string]any); ok {
			delete(document, "more")
			part["more"] = 1
			document[name] = part
		}
		if validate(t, document) {
			t.Errorf("matches with one more field beside or in %s", name)
		}
	}
}

func TestRequestsThatDoNotFit(t *testing.T) {
	tests := []struct {
		name   string
		change func(*decision.Request)
		want   string
	}{
		{"kind", func(r *decision.Request) { r.Kind = "sql" }, "kind"},
		{"no kind", func(r *decision.Request) { r.Kind = "" }, "kind"},
		{"no http", func(r *decision.Request) { r.HTTP = nil }, "lacks its own fields"},
		{"two kinds", func(r *decision.Request) { r.Credential = &decision.Credential{} }, "another kind"},
		{"no run", func(r *decision.Request) { r.Run.ID = "" }, "missing"},
		{"no account", func(r *decision.Request) { r.Actor.Account = "" }, "missing"},
		{"mode", func(r *decision.Request) { r.Run.Mode = "" }, "mode"},
		{"risk", func(r *decision.Request) { r.Risk = "low" }, "risk"},
		{"approval kind", func(r *decision.Request) { r.ApprovalKind = "any" }, "approval kind"},
		{"protocol", func(r *decision.Request) { r.Target.Protocol = "sctp" }, "protocol"},
		{"threshold", func(r *decision.Request) { r.Threshold = 1.1 }, "threshold"},
		{"threshold is no number", func(r *decision.Request) { r.Threshold = math.NaN() }, "threshold"},
		{"confidence", func(r *decision.Request) { r.Confidence = &decision.Confidence{Value: -1, Source: "history"} }, "confidence"},
		{"confidence is no number", func(r *decision.Request) {
			r.Confidence = &decision.Confidence{Value: math.NaN(), Source: "history"}
		}, "confidence"},
		{"confidence of nobody", func(r *decision.Request) { r.Confidence = &decision.Confidence{Value: 1} }, "source"},
		{"no time", func(r *decision.Request) { r.Time = time.Time{} }, "time"},
		{"no path", func(r *decision.Request) { r.HTTP.Path = "" }, "path"},
		{"body size", func(r *decision.Request) { r.HTTP.BodySize = -2 }, "size"},
		{"person without issuer", func(r *decision.Request) { r.Actor.Person = &decision.Person{Subject: "x"} }, "issuer"},
	}
	e := newEngine(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v, err := e.Evaluate(t.Context(), request(decision.KindHTTP, test.change))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v; want an error with %q", v, err, test.want)
			}
		})
	}
}

// FuzzEvaluate checks that nothing a workload sends changes what an action is.
func FuzzEvaluate(f *testing.F) {
	f.Add("GET", "/v1/charges", "a=b", "stripe")
	f.Add("\x00", "\xff\xfe", "%s%d", "\u202e\x1b[2J")
	e := newEngine(f)
	f.Fuzz(func(t *testing.T, method, path, query, action string) {
		r := request(decision.KindHTTP, func(r *decision.Request) {
			r.Risk, r.Action = decision.RiskIrreversible, action
			r.HTTP = &decision.HTTP{Method: method, Authority: "a", Path: path, Query: query}
		})
		v, err := e.Evaluate(t.Context(), r)
		if err == nil && v.Effect == decision.EffectAllow {
			t.Errorf("allowed: %v", v)
		}
	})
}
