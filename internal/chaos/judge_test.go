package chaos

import (
	"errors"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	well := evidence{allowed: 10, kept: 4, adopts: true}
	change := func(f func(*evidence)) evidence { e := well; f(&e); return e }
	tests := []struct {
		name string
		runs survival
		e    evidence
		want string // part of what is wrong; "": nothing is
	}{
		{"well", adopted, well, ""},
		{"nothing allowed", adopted, change(func(e *evidence) { e.allowed = 0 }), "nothing allowed"},
		{"a leak", survive, change(func(e *evidence) { e.leaked = 1 }), "1 attempts leaked"},
		{"an outsider fails", survive, change(func(e *evidence) { e.failures = 2 }), "outside runs failed"},
		{"something did not work", survive, change(func(e *evidence) { e.err = errors.New("no luck") }), "no luck"},
		{"a run ends for nothing", survive, change(func(e *evidence) { e.ended = 1; e.adopts = false }), "should have gone on"},
		{"a run is not adopted", adopted, change(func(e *evidence) { e.ended = 1 }), "should have gone on"},
		{"nobody keeps runs", adopted, change(func(e *evidence) { e.ended, e.adopts = 4, false }), ""},
		{"a connection breaks", adopted, change(func(e *evidence) { e.broken = 1 }), "should have held"},
		{"a connection of a run that ends breaks", ended, change(func(e *evidence) { e.broken, e.ended, e.kept = 1, 4, 0 }), ""},
		{"a run goes on that should end", ended, well, "nobody had kept"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := strings.Join(judge(test.runs, test.e), "; ")
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestBlame: what is found when all is over belongs to the last interruption.
func TestBlame(t *testing.T) {
	var out strings.Builder
	r := Report{out: &out, n: 2}
	r.add(Outcome{N: 1, Kind: "kill", Passed: true, Leaked: 0})
	r.add(Outcome{N: 2, Kind: "stop", Passed: true, Leaked: 0})
	r.blame(&r.Outcomes[1], nil)
	if !r.OK() {
		t.Fatalf("nothing is wrong: %+v", r)
	}
	r.Leaked = 3
	r.blame(&r.Outcomes[1], nil)
	if r.OK() || r.Passed != 1 || r.Failed != 1 || !strings.Contains(out.String(), "3 attempts leaked at the end") {
		t.Errorf("a late leak is not counted: %+v\n%s", r, out.String())
	}
}

func TestOKWantsAll(t *testing.T) {
	if r := (Report{n: 3, Passed: 2}); r.OK() {
		t.Error("one interruption was not made, and it is OK")
	}
}
