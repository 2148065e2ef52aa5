package gateway

import (
	"net/url"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/tool"
)

func TestCanonicalPath(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                  "/",
		"/a/b":               "/a/b",
		"/a/":                "/a/",
		"/%61%2Db":           "/a-b",
		"/%7e%7E":            "/~~",
		"/a%3fb%23":          "/a%3Fb%23",
		"/caf%c3%a9":         "/caf%C3%A9",
		"/a|b{c}":            "/a%7Cb%7Bc%7D",
		"/a:b@c!$&'()*+,;=d": "/a:b@c!$&'()*+,;=d",
		"/100%25":            "/100%25",
		"/100%2541":          "/100%2541", // twice escaped, but of no consequence
		"/a...":              "/a...",
		"/...":               "/...",
	} {
		if got, err := canonicalPath(raw); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", raw, got, err, want)
		}
	}
}

func TestCanonicalPathRefuses(t *testing.T) {
	for _, raw := range []string{
		"", "a", "*", "http://x/", "//", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/a/..", "/%2e%2e/b", "/.%2E", "/%2e",
		"/..;/b", "/a/..;x=1/b", "/.;/", "/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`, "/a%00", "/a\x00", "/a%0a", "/a%7f", "/a b", "/a\tb",
		"/a%", "/a%4", "/a%zz", "/a#b", "/a?b", "/é", "/\xff",
		"/%252e%252e/b", "/a%252fb", "/a%255cb", "/a%2500", "/a%25252e", "/..%253b/",
	} {
		if got, err := canonicalPath(raw); err == nil {
			t.Errorf("%q became %q", raw, got)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/%2e%2e/b", "/%25%32%65", "/a;b/..;/", "/x%41y", "/a|b", "/100%25", "//", `/\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path, err := canonicalPath(raw)
		if err != nil {
			return
		}
		if again, err := canonicalPath(path); err != nil || again != path {
			t.Errorf("%q became %q, which became %q, %v", raw, path, again, err)
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, path, err)
		}
		// What is sent is what was judged, byte for byte.
		if sent := (&url.URL{Scheme: "https", Host: "h", Path: decoded, RawPath: path}).RequestURI(); sent != path {
			t.Errorf("%q would be sent as %q", path, sent)
		}
		if original, err := url.PathUnescape(raw); err == nil && original != decoded {
			t.Errorf("%q means %q, but %q means %q", raw, original, path, decoded)
		}
		dangerous(t, path, decoded)
	})
}

// dangerous looks for what servers treat differently, also after they have
// decoded once more than they should.
func dangerous(t *testing.T, path, decoded string) {
	twice, err := url.PathUnescape(decoded)
	if err != nil {
		twice = decoded
	}
	for _, p := range []string{decoded, twice} {
		if strings.ContainsAny(p, "\\\x00") || strings.Count(p, "/") != strings.Count(path, "/") {
			t.Errorf("%q hides a separator or a NUL", path)
		}
		for s := range strings.SplitSeq(p, "/") {
			if bare, _, _ := strings.Cut(s, ";"); bare == "." || bare == ".." {
				t.Errorf("%q hides a dot segment", path)
			}
		}
	}
	_, _ = tool.SplitPath(path) // must not panic on anything canonical
}
