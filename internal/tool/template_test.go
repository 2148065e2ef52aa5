package tool

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestParseTemplate(t *testing.T) {
	for in, want := range map[string]Template{
		"/":             "/",
		"/**":           "/**",
		"/v1/*/parts":   "/v1/*/parts",
		"/v1/caf%C3%A9": "/v1/café",
		"/v1/café":      "/v1/café",
		"/%61":          "/a",
		"/a b":          "/a b",
		"/@me/~x":       "/@me/~x",
	} {
		got, err := ParseTemplate(in)
		if err != nil || got != want {
			t.Errorf("ParseTemplate(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseTemplateRefuses(t *testing.T) {
	for in, hint := range map[string]string{
		"":          `write "/"`,
		"v1":        `write "/v1"`,
		"/v1/":      `write "/v1"`,
		"//":        `write "/"`,
		"/a//b":     "ever matches",
		"/a/../b":   "ever matches",
		"/a/%2e":    "ever matches",
		"/**/a":     "only the last segment",
		"/a*":       "whole segment",
		"/***":      "whole segment",
		"/a/{id}":   "write `*`",
		"/a/:id":    "write `*`",
		"/a?b":      "leave out the query",
		"/a%2fb":    "ever matches",
		"/a%2ab":    "literal asterisk",
		"/100%":     "ever matches",
		"/a%252fb":  "ever matches",
		"/a;b":      "ever matches",
		"/a\x00":    "ever matches",
		"/a%ff":     "ever matches",
		"https://x": `write`,
	} {
		_, err := ParseTemplate(in)
		var value *ValueError
		if !errors.As(err, &value) || !strings.Contains(value.Hint, hint) {
			t.Errorf("ParseTemplate(%q): %v; want a hint with %q", in, err, hint)
		}
	}
}

func TestMoreSpecific(t *testing.T) {
	for _, c := range []struct {
		a, b Template
		want bool
	}{
		{"/a", "/*", true}, {"/*", "/**", true}, {"/a/*", "/a/**", true}, {"/a", "/a/**", true}, {"/a/**", "/a", false},
		{"/*", "/a", false}, {"/a", "/a", false}, {"/a/*/c", "/*/b/c", true}, {"/**", "/*", false},
	} {
		if got := c.a.moreSpecific(c.b); got != c.want {
			t.Errorf("%q more specific than %q: %v", c.a, c.b, got)
		}
	}
}

func FuzzParseTemplate(f *testing.F) {
	for _, seed := range []string{"/", "/**", "/v1/*/x", "/caf%C3%A9", "/a%2fb", "/..", "/{id}", "/%", "/a b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		template, err := ParseTemplate(s)
		if err != nil {
			return
		}
		again, err := ParseTemplate(strings.ReplaceAll(string(template), "%", "%25"))
		if err != nil || again != template {
			t.Fatalf("%q is not canonical: %q, %v", template, again, err)
		}
		// A template matches the paths that it describes.
		parts := strings.Split(strings.TrimPrefix(string(template), "/"), "/")
		for i, p := range parts {
			parts[i] = url.PathEscape(strings.ReplaceAll(strings.ReplaceAll(p, "**", "x/y"), "*", "z"))
		}
		path := "/" + strings.ReplaceAll(strings.Join(parts, "/"), "%2F", "/")
		if !template.Matches(path) {
			t.Fatalf("template %q does not match %q", template, path)
		}
		if template != "/" && template != "/**" && template.Matches("/") {
			t.Fatalf("template %q matches the root", template)
		}
	})
}
