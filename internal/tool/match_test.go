package tool

import (
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/decision"
)

func action(name string, risk decision.Risk, method, path string) Action {
	return Action{Name: name, Risk: risk, HTTP: HTTP{Methods: []string{method}, Path: Template(path)}}
}

func shop() *Tool {
	return &Tool{Name: "shop", Actions: []Action{
		action("all", decision.RiskRead, "GET", "/**"),
		action("one", decision.RiskRead, "GET", "/v1/items/*"),
		action("wide", decision.RiskWrite, "POST", "/v1/**"),
		action("refund", decision.RiskIrreversible, "POST", "/v1/refunds"),
		action("narrow", decision.RiskWrite, "POST", "/v1/items/*"),
		action("odd", decision.RiskUnknown, "PUT", "/v1/*"),
		action("put", decision.RiskIrreversible, "PUT", "/v1/x"),
		action("root", decision.RiskRead, "HEAD", "/"),
	}}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/", "all"},
		{"GET", "/v1/items/7", "one"},
		{"GET", "/v1/items", "all"},
		{"POST", "/v1", "wide"},
		{"POST", "/v1/items/7", "narrow"},
		{"POST", "/v1/items/7/parts", "wide"},
		{"POST", "/v1/refunds", "refund"},
		{"POST", "/v1/%72efunds", "refund"},
		{"POST", "/v1/%52efunds", "wide"},
		{"PUT", "/v1/x", "odd"},
		{"HEAD", "/", "root"},
		{"HEAD", "/v1", ""},
		{"POST", "/v2", ""},
		{"post", "/v1/refunds", ""},
		{"DELETE", "/v1/refunds", ""},
		{"GET", "", ""},
		{"GET", "*", ""},
		{"GET", "v1", ""},
		{"GET", "//", ""},
		{"GET", "/v1/", ""},
		{"GET", "/v1//items", ""},
		{"GET", "/v1/./items", ""},
		{"GET", "/v1/../items", ""},
		{"GET", "/v1/%2e%2E/items", ""},
		{"GET", "/v1/.%2e", ""},
		{"GET", "/v1%2fitems", ""},
		{"GET", "/v1%5Citems", ""},
		{"GET", `/v1\items`, ""},
		{"GET", "/v1/%00", ""},
		{"GET", "/v1/\x00", ""},
		{"GET", "/v1/%0a", ""},
		{"GET", "/v1/a b", ""},
		{"GET", "/v1/é", ""},
		{"GET", "/v1/%c3%a9", "all"},
		{"GET", "/v1/%c0%af", ""},
		{"GET", "/v1/%252e", ""},
		{"GET", "/v1/100%25", "all"},
		{"GET", "/v1/%zz", ""},
		{"GET", "/v1/%4", ""},
		{"GET", "/v1/a;b=c", ""},
		{"GET", "/v1/a%3Bb", ""},
		{"GET", "/v1/a?b", ""},
		{"GET", "/v1/a#b", ""},
		{"GET", "/v1/...", "all"},
	} {
		got, ok := shop().Match(c.method, c.path)
		if got.Name != c.want || ok != (c.want != "") {
			t.Errorf("Match(%s, %q) = %q, %v; want %q", c.method, c.path, got.Name, ok, c.want)
		}
	}
}

// Every spelling that a server could take for the risky path must be judged as
// risky, or not match at all.
func TestMatchSpellings(t *testing.T) {
	hex := "0123456789abcdef"
	for i := range len("/v1/refunds") {
		c := "/v1/refunds"[i]
		if c == '/' {
			continue
		}
		spelled := "/v1/refunds"[:i] + "%" + string(hex[c>>4]) + string(hex[c&15]) + "/v1/refunds"[i+1:]
		if got, _ := shop().Match("POST", spelled); got.Name != "refund" {
			t.Errorf("Match(%q) = %q", spelled, got.Name)
		}
	}
}

func TestTieGoesToTheFirst(t *testing.T) {
	tool := &Tool{Actions: []Action{action("a", decision.RiskRead, "GET", "/*/x"), action("b", decision.RiskRead, "GET", "/*/x")}}
	if got, _ := tool.Match("GET", "/1/x"); got.Name != "a" {
		t.Errorf("got %q", got.Name)
	}
}

func FuzzMatch(f *testing.F) {
	for _, seed := range []string{"/", "/v1/refunds", "/v1/%72efunds", "/v1/%2e%2e/x", "/a;b", "//", "/%c0%af", "/%25%32%65", "/**", "/*"} {
		f.Add("POST", seed)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		got, ok := shop().Match(method, path)
		if !ok {
			if got.Name != "" {
				t.Fatalf("an action without a match: %+v", got)
			}
			return
		}
		segments, err := SplitPath(path)
		if err != nil {
			t.Fatalf("%q matches, but SplitPath says %v", path, err)
		}
		for _, s := range segments {
			if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/\\;\x00") {
				t.Fatalf("%q has segment %q", path, s)
			}
		}
		for _, a := range shop().Actions {
			if a.HTTP.Methods[0] == method && a.HTTP.Path.Matches(path) && riskRank(a.Risk) > riskRank(got.Risk) {
				t.Fatalf("%q is %s, but %s was chosen", path, a.Name, got.Name)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	tool := shop()
	for b.Loop() {
		tool.Match("POST", "/v1/items/7/parts")
	}
}
