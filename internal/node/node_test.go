package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/launch"
)

func TestRunTasks(t *testing.T) {
	boom := errors.New("boom")
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for _, tt := range []struct {
		name string
		run  func(context.Context) error
		want string
	}{
		{"fails", func(context.Context) error { return boom }, "fails: boom"},
		{"stops", func(context.Context) error { return nil }, "stops ended by itself"},
		{"panics", func(context.Context) error { panic("ouch") }, "panics: panic: ouch"},
	} {
		err := runTasks(context.Background(), []task{{"other", wait}, {tt.name, tt.run}})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := runTasks(ctx, []task{{"a", wait}, {"b", wait}}); err != nil {
		t.Errorf("a clean end: %v", err)
	}
}

func TestCheckRelease(t *testing.T) {
	for release, want := range map[string]string{
		"6.1.0-13-amd64": "", "6.1": "", "6.18.44": "", "10.0.1": "",
		"6.0.19": "needs 6.1", "5.15.0-100-generic": "needs 6.1", "2.6.78": "boot a newer one",
		"": "has no version", "custom": "has no version",
	} {
		err := checkRelease(release)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", release, err, want)
		}
	}
}

// TestFailedStart: what a failed start has made goes, what is in use stays, and
// what a start that succeeded has made stays too.
func TestFailedStart(t *testing.T) {
	for _, ready := range []bool{false, true} {
		top := t.TempDir()
		n := &node{Options: Options{Log: slog.New(slog.DiscardHandler)}, ready: ready}
		for _, dir := range []string{"a/b/c", "used/d"} {
			if err := n.makeDir(filepath.Join(top, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(top, "used", "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n.takeDown(t.Context())
		for dir, stays := range map[string]bool{"a": ready, "a/b/c": ready, "used/d": ready, "used/file": true} {
			if _, err := os.Stat(filepath.Join(top, dir)); (err == nil) != stays {
				t.Errorf("ready %v: %s: %v", ready, dir, err)
			}
		}
	}
}

func TestSummaryQuotesWhatTheWorkloadSaid(t *testing.T) {
	if got := summary("run_a", nil); got != "" {
		t.Errorf("nothing was refused, but: %q", got)
	}
	var refused []endpoint.Refusal
	for range maxSummary + 3 {
		refused = append(refused, endpoint.Refusal{
			Target: "evil\x1b[2J.example", Detail: "POST /\u202e", Rule: "r", Text: "No.", Count: 2, Approval: "apr_1",
		})
	}
	got := summary("run_a", refused)
	for _, want := range []string{`"evil\x1b[2J.example"`, `\u202e`, "varvel approve apr_1", "and 3 more", "varvel why run_a"} {
		if !strings.Contains(got, want) {
			t.Errorf("the summary lacks %q:\n%s", want, got)
		}
	}
	if strings.ContainsAny(got, "\x1b\u202e") {
		t.Errorf("a control character came through:\n%q", got)
	}
	if strings.Contains(got, "observe") {
		t.Errorf("nothing was observed, but:\n%s", got)
	}
	got = summary("run_a", []endpoint.Refusal{{Target: "x.example", Rule: "r", Text: "No.", Observed: true}})
	if strings.Contains(got, "Refused in") || !strings.Contains(got, "Let through in observe mode") || !strings.Contains(got, "1× x.example: No. (r)") {
		t.Errorf("what was let through is told as refused:\n%s", got)
	}
}

func TestExitOf(t *testing.T) {
	if p := exitOf(kernel.Event{Status: 9}); p.Signal != 9 || p.ExitCode != nil {
		t.Errorf("killed: %+v", p)
	}
	if p := exitOf(kernel.Event{Status: 7 << 8}); p.Signal != 0 || p.ExitCode == nil || *p.ExitCode != 7 {
		t.Errorf("exit 7: %+v", p)
	}
	if p := exitOf(kernel.Event{}); p.ExitCode == nil || *p.ExitCode != 0 {
		t.Errorf("exit 0: %+v", p)
	}
}

func TestMayLaunch(t *testing.T) {
	for _, tt := range []struct {
		name string
		peer launch.Peer
		who  config.Principals
		want bool
	}{
		{"root", launch.Peer{}, config.Principals{}, true},
		{"nobody is listed", launch.Peer{UID: 65534, GID: 65534}, config.Principals{}, false},
		{"by user", launch.Peer{UID: 65534}, config.Principals{Users: []string{"nobody"}}, true},
		{"other user", launch.Peer{UID: 1}, config.Principals{Users: []string{"nobody"}}, false},
		{"unknown user", launch.Peer{UID: 1}, config.Principals{Users: []string{"no-such-user"}}, false},
		{"by group", launch.Peer{UID: 1, GID: 65534}, config.Principals{Groups: []string{"nogroup"}}, true},
		{"by other group", launch.Peer{UID: 1, GID: 5, Groups: []uint32{65534}}, config.Principals{Groups: []string{"nogroup"}}, true},
		{"unknown group", launch.Peer{UID: 1, GID: 5}, config.Principals{Groups: []string{"no-such-group"}}, false},
	} {
		if got := mayLaunch(tt.peer, tt.who); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestNeedsRestart(t *testing.T) {
	a := config.Node{StateDir: "/a"}
	if what := needsRestart(a, a); what != "" {
		t.Errorf("nothing changed, but %s", what)
	}
	b := a
	b.Policy.Dirs = []string{"/p"}
	b.Roles = map[string]config.Principals{"approver": {Users: []string{"x"}}}
	if what := needsRestart(a, b); what != "" {
		t.Errorf("policy and roles change while it runs, but %s", what)
	}
	b.StateDir = "/b"
	if what := needsRestart(a, b); what != "state_dir" {
		t.Errorf("got %q, want state_dir", what)
	}
}

func TestDenialsAreBoundedAndCounted(t *testing.T) {
	d := newDenials(nil)
	var events, counted uint64
	for range 10 * denialBurst {
		if n := d.admit(1, 3); n > 0 { // the kernel has left out two of three
			events++
			counted += n
		}
	}
	if events < denialBurst || events > 2*denialBurst {
		t.Errorf("%d events for %d refusals", events, 30*denialBurst)
	}
	if rest := d.runs[1].skipped; counted+rest != 30*denialBurst {
		t.Errorf("%d counted and %d waiting of %d", counted, rest, 30*denialBurst)
	}
	if d.admit(2, 1) != 1 {
		t.Error("another run pays for the flood")
	}
}

func TestRefusalNamesWhatItWaitsFor(t *testing.T) {
	r := decision.Request{Target: decision.Target{Name: "api.example.org"}, HTTP: &decision.HTTP{Method: "POST", Path: "/v1"}}
	d := decision.Decision{Effect: decision.EffectHold, ApprovalID: "apr_1", Reasons: []decision.Reason{{Rule: "a", Text: "A."}, {Rule: "b", Text: "B."}}}
	if got := refusalOf(r, d); got.Approval != "apr_1" || got.Detail != "POST /v1" || got.Rule != "b" {
		t.Errorf("held: %+v", got)
	}
	d.Effect = decision.EffectDeny
	if got := refusalOf(r, d); got.Approval != "" {
		t.Errorf("denied: %+v", got)
	}
}

func TestNodeIDStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node-id")
	first, err := nodeID(file)
	if err != nil {
		t.Fatal(err)
	}
	second, err := nodeID(file)
	if err != nil || first != second || !strings.HasPrefix(first, "node_") {
		t.Errorf("%q, then %q, %v", first, second, err)
	}
}

func TestFingerprintSeesChanges(t *testing.T) {
	dir := t.TempDir()
	cfg := &config.Config{Dir: dir}
	before := fingerprint(cfg)
	file := filepath.Join(dir, "varvel.yaml")
	if err := os.WriteFile(file, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	created := fingerprint(cfg)
	if err := os.Chtimes(file, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if touched := fingerprint(cfg); before == created || created == touched {
		t.Errorf("a change was not seen: %q %q %q", before, created, touched)
	}
}
