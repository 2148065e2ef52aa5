package tool

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParseHost(t *testing.T) {
	for in, want := range map[string]Host{
		"api.example.org:443":          {"api.example.org", 443},
		"API.Example.ORG:8443":         {"api.example.org", 8443},
		"prometheus:9090":              {"prometheus", 9090},
		"my_service.test:1":            {"my_service.test", 1},
		"xn--bcher-kva.example:65535":  {"xn--bcher-kva.example", 65535},
		"1and1.example:443":            {"1and1.example", 443},
		strings.Repeat("a", 63) + ":1": {strings.Repeat("a", 63), 1},
	} {
		if got, err := ParseHost(in); err != nil || got != want {
			t.Errorf("ParseHost(%q) = %v, %v", in, got, err)
		}
	}
}

func TestParseHostRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "no port",
		"api.example.org":                 `write "api.example.org:443"`,
		"api.example.org:":                "not a port",
		"api.example.org:0":               "not a port",
		"api.example.org:0443":            "not a port",
		"api.example.org:+443":            "not a port",
		"api.example.org:65536":           "not a port",
		"https://api.example.org:443":     "is a URL",
		"user@api.example.org:443":        "not a host name",
		"192.0.2.1:443":                   "is an address",
		"[2001:db8::1]:443":               "is an address",
		"1.2.3:443":                       "ends with a number",
		"0x7f.1:443":                      "ends with a number",
		"0x7f000001:443":                  "ends with a number",
		"*.example.org:443":               "has a wildcard",
		"api.example.org.:443":            `write "api.example.org"`,
		"bücher.example:443":              `write "xn--bcher-kva.example"`,
		"bu\xffcher:443":                  "not UTF-8",
		"a..b:443":                        "empty label",
		".a:443":                          "empty label",
		"-a.example:443":                  "hyphen",
		"a b.example:443":                 "no host name has",
		"a\x00.example:443":               "no host name has",
		"localhost:443":                   "own loopback",
		"x.LOCALHOST:443":                 "own loopback",
		"xn--a.example:443":               "punycode",
		strings.Repeat("a", 64) + ":1":    "longer than 63",
		strings.Repeat("a.", 127) + "a:1": "longer than 253",
	} {
		_, err := ParseHost(in)
		var value *ValueError
		if !errors.As(err, &value) || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseHost(%q): %v; want %q", in, err, want)
		}
	}
}

func FuzzParseHost(f *testing.F) {
	for _, seed := range []string{"api.example.org:443", "[::1]:80", "xn--a:1", "ü:1", ":", "a.:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHost(s)
		if err != nil {
			return
		}
		again, err := ParseHost(h.String())
		if err != nil || again != h {
			t.Fatalf("%q: %v is not canonical: %v, %v", s, h, again, err)
		}
		if isAddress(h.Name) || strings.ToLower(h.Name) != h.Name {
			t.Fatalf("%q gives name %q", s, h.Name)
		}
	})
}

func TestCheckMethod(t *testing.T) {
	for in, want := range map[string]string{
		"GET": "", "PROPFIND": "", "get": "write GET", "CONNECT": "never passed", "TRACE": "never passed", "*": "list the methods", "GTE": "not known", "": "not known",
	} {
		err := CheckMethod(in)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("CheckMethod(%q): %v; want %q", in, err, want)
		}
	}
}

func TestParseHeader(t *testing.T) {
	for in, want := range map[string]string{"authorization": "Authorization", "X-API-key": "X-Api-Key", "PRIVATE-TOKEN": "Private-Token"} {
		if got, err := ParseHeader(in); err != nil || got != want {
			t.Errorf("ParseHeader(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "a b", "a:", "x\r\ny", "host", "Content-Length", "transfer-encoding", "Proxy-Authorization", "é"} {
		if got, err := ParseHeader(in); err == nil {
			t.Errorf("ParseHeader(%q) = %q, want an error", in, got)
		}
	}
}

func TestAttachValue(t *testing.T) {
	for in, want := range map[string]bool{
		"Bearer {{ token }}": true, "{{ token }}": true, "token={{ token }};v=1": true,
		"": false, "Bearer": false, "{{token}}": false, "{{ token }} {{ token }}": false, "{{ user }}{{ token }}": false,
		"Bearer {{ token }}\r\nX: y": false, " {{ token }}": false, "{{ token }}\x00": false,
	} {
		if err := CheckAttachValue(in); (err == nil) != want {
			t.Errorf("CheckAttachValue(%q): %v", in, err)
		}
	}
	if p, s := (&Attach{Value: "a {{ token }} b"}).Split(); p != "a " || s != " b" {
		t.Errorf("Split: %q, %q", p, s)
	}
}

func TestRevision(t *testing.T) {
	sealed := func(change func(*Tool)) string {
		t.Helper()
		tool := shop()
		tool.Hosts = []Host{{"shop.example", 443}}
		tool.Within = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		tool.Credential = &Credential{Issuer: Issuer{Audience: "shop", Lifetime: time.Minute}}
		change(tool)
		if err := tool.Seal(); err != nil {
			t.Fatal(err)
		}
		return tool.Revision
	}
	base := sealed(func(*Tool) {})
	if !strings.HasPrefix(base, "sha256:") || len(base) != len("sha256:")+64 {
		t.Errorf("revision %q", base)
	}
	for name, change := range map[string]func(*Tool){
		"position": func(t *Tool) { t.Pos = Position{"x", 3}; t.Actions[0].Pos = Position{"y", 4} },
		"revision": func(t *Tool) { t.Revision = "other" },
	} {
		if got := sealed(change); got != base {
			t.Errorf("%s changes the revision", name)
		}
	}
	for name, change := range map[string]func(*Tool){
		"name":     func(t *Tool) { t.Name = "x" },
		"host":     func(t *Tool) { t.Hosts[0].Port = 1 },
		"within":   func(t *Tool) { t.Within = nil },
		"risk":     func(t *Tool) { t.Actions[0].Risk = "write" },
		"method":   func(t *Tool) { t.Actions[0].HTTP.Methods = []string{"PUT"} },
		"path":     func(t *Tool) { t.Actions[0].HTTP.Path = "/x" },
		"lifetime": func(t *Tool) { t.Credential.Issuer.Lifetime++ },
		"attach":   func(t *Tool) { t.Credential.Attach = &Attach{} },
		"body":     func(t *Tool) { t.Actions[0].MaxBody++ },
		"upstream": func(t *Tool) { t.Upstream = UpstreamPlain },
	} {
		if got := sealed(change); got == base {
			t.Errorf("%s does not change the revision", name)
		}
	}
}
