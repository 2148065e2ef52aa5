package policy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/decision"
)

// writePolicy puts a module into dir, or into a new directory if dir is "".
func writePolicy(t testing.TB, dir, name, text string) string {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestOperatorsRules(t *testing.T) {
	const deny, hold, allow = decision.EffectDeny, decision.EffectHold, decision.EffectAllow
	tests := []struct {
		name, rego string
		effect     decision.Effect
		rule       string
	}{
		{"a deny that speaks", `deny contains {"rule": "ours.no", "text": "No."} if input.tool == "stripe"`, deny, "ours.no"},
		{"a deny that is silent", `deny contains {"rule": "ours.no", "text": "No."} if input.tool == "ledger"`, allow, "http.read"},
		{"a hold that speaks", `hold contains {"rule": "ours.ask", "text": "Ask."} if input.run.agent == "billing-bot"`, hold, "ours.ask"},
		{"deny wins", `deny contains {"rule": "ours.no", "text": "No."}
			hold contains {"rule": "ours.ask", "text": "Ask."}`, deny, "ours.no"},
		{"the clock is the request's", `deny contains {"rule": "ours.time", "text": "Late."} if time.clock(time.now_ns()) == [12, 0, 0]`, deny, "ours.time"},
		{"helpers are free", `night if time.clock(time.now_ns())[0] < 6
			deny contains {"rule": "ours.night", "text": "Late."} if night`, allow, "http.read"},
		{"what would move the cursor is replaced", `deny contains {"rule": "ours.no", "text": "a\u001b[2Jb"}`, deny, "ours.no"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := newEngine(t, writePolicy(t, "", "ours.rego", "package varvel.custom\n"+test.rego))
			v, err := e.Evaluate(context.Background(), request(decision.KindHTTP, nil))
			if err != nil {
				t.Fatal(err)
			}
			if v.Effect != test.effect || v.Reasons[0].Rule != test.rule {
				t.Errorf("got %s by %s, want %s by %s", v.Effect, v.Reasons[0].Rule, test.effect, test.rule)
			}
			if strings.ContainsRune(v.Reasons[0].Text, '\x1b') {
				t.Errorf("the text %q has a control character", v.Reasons[0].Text)
			}
		})
	}
}

func TestOperatorsNeed(t *testing.T) {
	dir := writePolicy(t, "", "ours.rego", `package varvel.custom
hold contains {"rule": "ours.owner", "text": "Not the owner.", "need": {
	"groups": ["dba"], "quorum": 2, "expires_seconds": 600, "exclude": [input.run.owner],
}} if input.risk == "irreversible"`)
	v, err := newEngine(t, dir).Evaluate(context.Background(), request(decision.KindHTTP, func(r *decision.Request) {
		r.Risk, r.ApprovalKind = decision.RiskIrreversible, decision.Confirm
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := &decision.Need{Kind: decision.FourEyes, Groups: []string{"dba"}, Quorum: 2, Expires: 600e9, Exclude: []string{"finance"}}
	if diff := cmp.Diff(want, v.Need); diff != "" {
		t.Error(diff)
	}
}

// TestRulesThatFail checks that a rule which goes wrong denies, by an error,
// rather than being silent.
func TestRulesThatFail(t *testing.T) {
	tests := []struct{ name, rego, want string }{
		{"failing built-in", `deny contains {"rule": "ours.no", "text": "No."} if to_number(input.tool) == 1`, "ours.rego:2: "},
		{"reason without text", `deny contains {"rule": "ours.no"}`, "the field text is missing"},
		{"reason with more", `deny contains {"rule": "ours.no", "text": "No.", "x": 1}`, `unknown fields: "x"`},
		{"reason is a string", `deny contains "no"`, "string where an object should be"},
		{"rule id is a sentence", `deny contains {"rule": "not an id", "text": "No."}`, "letters, digits"},
		{"text is a number", `deny contains {"rule": "ours.no", "text": 7}`, "number where a string should be"},
		{"text is long", `deny contains {"rule": "ours.no", "text": concat("", [x | some n in numbers.range(1, 2000); x := "a"])}`, "longer than"},
		{"too many reasons", `deny contains {"rule": sprintf("r%d", [n]), "text": "No."} if some n in numbers.range(1, 100)`, "more than 64"},
		{"quorum is too large", `hold contains {"rule": "ours.ask", "text": "Ask.", "need": {"quorum": 99}}`, "from 1 to 16"},
		{"expiry is too far", `hold contains {"rule": "ours.ask", "text": "Ask.", "need": {"expires_seconds": 99999999}}`, "expires_seconds is 99999999"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := newEngine(t, writePolicy(t, "", "ours.rego", "package varvel.custom\n"+test.rego))
			v, err := e.Evaluate(context.Background(), request(decision.KindHTTP, nil))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("verdict %v, error %v; want an error with %q", v, err, test.want)
			}
		})
	}
}

func TestBadModulesAreRefused(t *testing.T) {
	custom := "package varvel.custom\n"
	tests := []struct{ name, rego, line, want string }{
		{"syntax", custom + "deny contains {", ":2: ", "rego"},
		{"misspelt field", custom + `deny contains {"rule": "a", "text": "b"} if input.tol == "x"`, ":2: ", "input.tol"},
		{"misspelt deep field", custom + `deny contains {"rule": "a", "text": "b"} if input.http.verb == "x"`, ":2: ", "input.http.verb"},
		{"value that cannot be", custom + `deny contains {"rule": "a", "text": "b"} if input.threshold == "high"`, ":2: ", "match error"},
		{"deny is a value", custom + "deny := true", ":2: ", "deny must be a set of reasons"},
		{"deny is an object", custom + `deny["x"] := 1`, ":2: ", "deny must be a set of reasons"},
		{"hold has a default", custom + "default hold := false", ":2: ", "hold must be a set of reasons"},
		{"allow", custom + "allow if true", ":2: ", "has no allow"},
		{"Varvel's own package", "package varvel\n" + `grants contains {"rule": "a", "text": "b"}`, ":1: ", "Varvel's own"},
		{"below custom", "package varvel.custom.deny\nx := 1", ":1: ", "Varvel's own"},
		{"http.send", custom + `x := http.send({"method": "get", "url": "http://127.0.0.1"})`, ":2: ", "undefined function http.send"},
		{"net.lookup_ip_addr", custom + `x := net.lookup_ip_addr("localhost")`, ":2: ", "undefined function net.lookup_ip_addr"},
		{"opa.runtime", custom + `x := opa.runtime()`, ":2: ", "undefined function opa.runtime"},
		{"rego.parse_module", custom + `x := rego.parse_module("a", "package a")`, ":2: ", "undefined function rego.parse_module"},
		{"rand.intn", custom + `x := rand.intn("a", 2)`, ":2: ", "undefined function rand.intn"},
		{"uuid.rfc4122", custom + `x := uuid.rfc4122("a")`, ":2: ", "undefined function uuid.rfc4122"},
		{"json.match_schema", custom + `x := json.match_schema({}, {"$ref": "file:///etc/passwd"})`, ":2: ", "undefined function json.match_schema"},
		{"trace", custom + `x if trace("x")`, ":2: ", "undefined function trace"},
		{"print", custom + `x if print("x")`, ":2: ", "undefined function internal.print"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := writePolicy(t, "", "ours.rego", test.rego)
			_, err := New(Config{Dirs: []string{dir}, Log: quiet()})
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, not Problems", err)
			}
			if text := err.Error(); !strings.Contains(text, filepath.Join(dir, "ours.rego")+test.line) || !strings.Contains(text, test.want) {
				t.Errorf("the error is %q; want file%s and %q", text, test.line, test.want)
			}
		})
	}
}

func TestEveryProblemAtOnce(t *testing.T) {
	dir := writePolicy(t, "", "a.rego", "package varvel.custom\nallow if true\ndeny := 1\n")
	writePolicy(t, dir, "b.rego", "package varvel\n")
	_, err := New(Config{Dirs: []string{dir}, Log: quiet()})
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 3 {
		t.Fatalf("got %d problems, want 3: %v", len(problems), err)
	}
}

func TestFilesThatCannotBePolicy(t *testing.T) {
	dir := t.TempDir()
	big := writePolicy(t, "", "big.rego", "package big\n#"+strings.Repeat("x", maxModuleSize))
	data := writePolicy(t, "", "data.json", "{}")
	pipe := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(pipe, "x.rego")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "cannot be read",
		big:                           "larger than",
		data:                          "data files are not read",
		pipe:                          "not a regular file",
	} {
		_, err := New(Config{Dirs: []string{path}, Log: quiet()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// TestMountedConfiguration reads a directory as Kubernetes mounts it: links
// into a hidden directory, which must not be read twice.
func TestMountedConfiguration(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..2026"), 0o700); err != nil {
		t.Fatal(err)
	}
	writePolicy(t, filepath.Join(dir, "..2026"), "ours.rego", "package varvel.custom\n"+`deny contains {"rule": "ours.no", "text": "No."}`)
	for link, to := range map[string]string{"..data": "..2026", "ours.rego": "..data/ours.rego"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	v, err := newEngine(t, dir).Evaluate(context.Background(), request(decision.KindHTTP, nil))
	if err != nil || len(v.Reasons) != 1 || v.Reasons[0].Rule != "ours.no" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestOperatorsTestsAreRun(t *testing.T) {
	dir := writePolicy(t, "", "ours.rego", "package varvel.custom\n"+`deny contains {"rule": "ours.no", "text": "No."} if input.tool == "stripe"`)
	writePolicy(t, dir, "ours_test.rego", `package varvel.custom_test
import data.varvel
test_stripe if varvel.custom.deny with input as {"tool": "stripe"}
test_wrong if count(varvel.custom.deny) == 1 with input as {"tool": "ledger"}`)
	results, err := RunTests(context.Background(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, r := range results {
		if r.Package == "varvel.custom_test" {
			got[r.Name] = r.Passed()
			if !strings.HasPrefix(r.String(), filepath.Join(dir, "ours_test.rego:")) {
				t.Errorf("%q does not begin with its place", r)
			}
		}
	}
	if diff := cmp.Diff(map[string]bool{"test_stripe": true, "test_wrong": false}, got); diff != "" {
		t.Error(diff)
	}
}
