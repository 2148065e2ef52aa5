package policy

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/varvel/varvel/internal/decision"
)

func sharedEngine(t *testing.T, rules string) *Engine {
	t.Helper()
	dir := t.TempDir()
	if rules != "" {
		if err := os.WriteFile(filepath.Join(dir, "custom.rego"), []byte("package varvel.custom\n\n"+rules), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e, err := New(Config{Dirs: []string{dir}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestSharedNeverMixesRuns: whichever way a rule gets at the id of a run, runs that it
// can tell apart are asked about one by one.
func TestSharedNeverMixesRuns(t *testing.T) {
	deny := func(body string) string {
		return "deny contains {\"rule\": \"custom.one\", \"text\": \"This run may not.\"} if {\n" + body + "\n}\n"
	}
	for name, tt := range map[string]struct {
		rules  string
		perRun bool
	}{
		"the default policy":              {"", false},
		"another field":                   {deny(`input.run.agent == "nobody"`), false},
		"by name":                         {deny(`input.run.id == "run_b"`), true},
		"by an index":                     {deny(`input["run"]["id"] == "run_b"`), true},
		"through a variable":              {deny("r := input.run\n r.id == \"run_b\""), true},
		"by a computed field":             {deny("some k in {\"id\"}\n input.run[k] == \"run_b\""), true},
		"through all of it":               {deny(`walk(input, [_, "run_b"])`), true},
		"through a variable of all of it": {deny("i := input\n i.run.id == \"run_b\""), true},
		"in a comprehension":              {deny(`count([v | some v in input.run; v == "run_b"]) > 0`), true},
		"in a function":                   {"f(x) := x.id\n" + deny(`f(input.run) == "run_b"`), true},
	} {
		t.Run(name, func(t *testing.T) {
			e := sharedEngine(t, tt.rules)
			s := e.Shared()
			if s.perRun != tt.perRun {
				t.Errorf("the policy reads the id of a run: %v", s.perRun)
			}
			for _, id := range []string{"run_a", "run_b", "run_a"} {
				r := request(decision.KindConnect, nil)
				r.Run.ID = id
				want, err := e.Evaluate(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				got, err := s.Evaluate(t.Context(), r)
				if err != nil || got.Effect != want.Effect {
					t.Errorf("%s: %s instead of %s, %v", id, got.Effect, want.Effect, err)
				}
				if denied := want.Effect == decision.EffectDeny; denied != (tt.perRun && id == "run_b") {
					t.Errorf("%s is denied: %v; the test's rule does not do what it is for", id, denied)
				}
			}
		})
	}
}

// TestSharedAsksOnce: and what differs in anything else has its own answer.
func TestSharedAsksOnce(t *testing.T) {
	s := sharedEngine(t, "").Shared()
	for i := range 10 {
		r := request(decision.KindConnect, nil)
		r.Run.ID += string(rune('a' + i))
		if _, err := s.Evaluate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.known) != 1 {
		t.Errorf("%d answers for ten runs of one kind", len(s.known))
	}
	for i, change := range []func(*decision.Request){
		func(r *decision.Request) { r.Actor.StartedBy = &decision.LocalUser{UID: 77} },
		func(r *decision.Request) { r.Actor.Person = &decision.Person{Issuer: "i", Subject: "s"} },
		func(r *decision.Request) { r.Run.Agent = "other" },
		func(r *decision.Request) { r.Target.Port++ },
	} {
		r := request(decision.KindConnect, nil)
		change(&r)
		if _, err := s.Evaluate(t.Context(), r); err != nil || len(s.known) != i+2 {
			t.Errorf("change %d: %d answers, %v", i, len(s.known), err)
		}
	}
}
