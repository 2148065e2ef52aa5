package audit

import (
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
	"github.com/varvel/varvel/internal/decision"
)

// fillFields sets every field that is reachable from v to something.
func fillFields(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillFields(v.Elem())
	case reflect.Struct:
		fillStruct(v)
	case reflect.String:
		v.SetString("a<b>&c \u2028\u2029\ufffd\x01\x7f\b\f\\ü😀\xff")
	case reflect.Float64:
		v.SetFloat(1e-7)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64, reflect.Uint32, reflect.Uint16:
		v.SetUint(2)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillFields(v.Index(0))
		fillFields(v.Index(1))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]uint64{"b": 1, "a": 2, "ä": maxNumber}))
	}
}

func fillStruct(v reflect.Value) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)))
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("2001:db8::1")))
	default:
		for i := range v.NumField() {
			fillFields(v.Field(i))
		}
	}
}

func fullEvent() Event {
	var e Event
	fillFields(reflect.ValueOf(&e).Elem())
	e.V, e.Kind, e.Effect, e.Would = Version, KindApproval, decision.EffectDeny, ""
	return e
}

// TestCanonical: the encoding is RFC 8785, whatever the fields hold.
func TestCanonical(t *testing.T) {
	plain := sample(1)
	plain.V = Version
	for name, e := range map[string]Event{"full": fullEvent(), "plain": plain, "empty": {}} {
		b, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		want, err := jcs.Transform(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(b)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestDecodeIsInverse(t *testing.T) {
	b, err := encode(fullEvent())
	if err != nil {
		t.Fatal(err)
	}
	e, err := decode(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := encode(e)
	if err != nil || string(again) != string(b) {
		t.Errorf("%s became %s: %v", b, again, err)
	}
	if e.Hash != (Hash{}) || e.Prev != (Hash{}) || e.Seq != 0 || e.Node != "" || e.Boot != "" {
		t.Errorf("the payload has fields of the frame: %+v", e)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, b := range map[string]string{
		"newer":         `{"kind":"http","v":2,"wings":4}`,
		"no version":    `{"kind":"http"}`,
		"unknown field": `{"kind":"http","v":1,"wings":4}`,
		"trailing":      `{"kind":"http","v":1}{}`,
		"no JSON":       `kind`,
		"wrong hash":    `{"hash":"AB","kind":"http","v":1}`,
	} {
		if _, err := decode([]byte(b)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := decode([]byte(`{"kind":"http","v":1}`)); err != nil {
		t.Error("control:", err)
	}
	if _, err := encode(Event{Threshold: math.NaN()}); err == nil {
		t.Error("NaN was encoded")
	}
}

func TestHashText(t *testing.T) {
	h := Hash{1, 0xab}
	b, err := json.Marshal(h)
	var again Hash
	if err != nil || json.Unmarshal(b, &again) != nil || again != h {
		t.Errorf("%s, %v", b, err)
	}
	for _, s := range []string{"", "0", strings.Repeat("0", 62), strings.Repeat("0", 66), strings.Repeat("A", 64), strings.Repeat("g", 64)} {
		if err := again.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func TestFromDecision(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	r := decision.Request{
		ID: "dec_1", Kind: decision.KindHTTP, Time: at,
		Run:   decision.Run{ID: "run_1", Agent: "a", Owner: "o", Node: "n", Boot: "b", Mode: decision.ModeObserve},
		Actor: decision.Actor{Account: "spiffe://x/agent/a", Person: &decision.Person{Issuer: "i", Subject: "s"}, StartedBy: &decision.LocalUser{UID: 7, Name: "u"}},
		Tool:  "t", Action: "act", Risk: decision.RiskWrite, Target: decision.Target{Name: "h", Port: 443, Protocol: "tcp"},
		HTTP:       &decision.HTTP{Method: "POST", Authority: "h", Path: "/p", Query: "q=1", BodySize: -1},
		Credential: &decision.Credential{Audience: "aud", Lifetime: time.Minute},
		Threshold:  0.5, Confidence: &decision.Confidence{Value: 0.25, Source: "agent"},
		Digest: "sha256:00", ToolRevision: "sha256:01", Preview: "POST /p",
	}
	d := decision.Decision{
		ID: "dec_1", Effect: decision.EffectAllow, Would: decision.EffectHold, ApprovalID: "apr_1", Revision: "rev",
		Reasons: []decision.Reason{{Rule: "r", Text: "t"}}, Obligations: []decision.Obligation{{Name: "n", Value: "v"}},
	}
	want := Event{
		Kind: KindHTTP, Time: at, Effect: decision.EffectAllow, Would: decision.EffectHold,
		Run: "run_1", Agent: "a", Owner: "o", Mode: decision.ModeObserve, Actor: "spiffe://x/agent/a",
		Person: &decision.Person{Issuer: "i", Subject: "s"}, StartedBy: &User{UID: 7, Name: "u"},
		Tool: "t", ToolRevision: "sha256:01", Action: "act", Risk: decision.RiskWrite,
		Target:     &Target{Name: "h", Port: 443, Protocol: "tcp"},
		HTTP:       &HTTP{Method: "POST", Authority: "h", Path: "/p", Query: "q=1"},
		Credential: &Credential{Audience: "aud", LifetimeSeconds: 60},
		Confidence: &Confidence{Value: 0.25, Source: "agent"}, Threshold: 0.5,
		DecisionID: "dec_1", ApprovalID: "apr_1", Correlation: "apr_1", PolicyRevision: "rev", Digest: "sha256:00", Preview: "POST /p",
		Reasons: d.Reasons, Obligations: d.Obligations,
	}
	if diff := cmp.Diff(want, FromDecision(r, d), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	bare := FromDecision(decision.Request{Kind: decision.KindConnect}, decision.Decision{ID: "dec_2", Effect: decision.EffectDeny})
	if bare.Target != nil || bare.HTTP != nil || bare.Credential != nil || bare.Correlation != "dec_2" {
		t.Errorf("%+v", bare)
	}
	l := mustOpen(t, t.TempDir(), testOptions(), realSystem())
	if err := l.Record(t.Context(), r, d, decision.Durable); err != nil {
		t.Error(err)
	}
	if got := collect(t, l.Dir(), Filter{Kind: KindHTTP, ApprovalID: "apr_1"}); len(got) != 1 {
		t.Errorf("%d events", len(got))
	}
}
