package egress

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/ruleset"
	"github.com/varvel/varvel/internal/tool"
)

func TestCanonicalHost(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]string{
		"example.org":                   "example.org",
		"Example.ORG.":                  "example.org",
		"_dmarc.x-1.example":            "_dmarc.x-1.example",
		long + ".org":                   long + ".org",
		"":                              "",
		".":                             "",
		"..":                            "",
		"a..b":                          "",
		".a":                            "",
		"a.b..":                         "",
		long + "a.org":                  "",
		`a\.b.org`:                      "",
		`a\000.org`:                     "",
		"a b.org":                       "",
		"a/b.org":                       "",
		"*.org":                         "",
		"bücher.example":                "",
		"\u212a.example":                "", // Kelvin sign, which Unicode lowers to k
		strings.Repeat("a.", 126) + "a": strings.Repeat("a.", 126) + "a",
		strings.Repeat("a.", 127) + "a": "",
	} {
		got, ok := CanonicalHost(in)
		if got != want || ok != (want != "") {
			t.Errorf("CanonicalHost(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
}

func TestNameTable(t *testing.T) {
	stripe := &tool.Tool{Name: "stripe", Hosts: []tool.Host{{Name: "api.example.com", Port: 443}, {Name: "api.example.com", Port: 8443}}}
	admin := &tool.Tool{Name: "admin", Hosts: []tool.Host{{Name: "api.example.com", Port: 9000}}}
	table, err := newNameTable([]*tool.Tool{stripe, admin}, []config.EgressRule{
		named("API.example.com.", 443, 80),
		named("*.example.com", 7000),
		named("**.deep.example", 1),
		ranged("192.0.2.0/24", "tcp"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host string
		port uint16
		want string // tool, name of the rule, or nothing
	}{
		{"api.example.com", 443, "stripe"}, // the tool, not the rule
		{"api.example.com", 8443, "stripe"},
		{"api.example.com", 9000, "admin"},
		{"api.example.com", 80, "API.example.com."},
		{"api.example.com", 7000, "*.example.com"},
		{"api.example.com", 81, ""},
		{"www.example.com", 7000, "*.example.com"},
		{"www.example.com", 443, ""},
		{"a.www.example.com", 7000, ""},
		{"example.com", 7000, ""},
		{"a.deep.example", 1, "**.deep.example"},
		{"c.b.a.deep.example", 1, "**.deep.example"},
		{"deep.example", 1, ""},
		{"xdeep.example", 1, ""},
		{"a.deep.example.com", 1, ""},
	} {
		got, ok := table.at(tt.host, tt.port)
		by := ""
		switch {
		case got.Tool != nil:
			by = got.Tool.Name
		case got.Rule != nil:
			by = got.Rule.Name
		}
		if by != tt.want || ok != (tt.want != "") {
			t.Errorf("%s:%d is allowed by %q, want %q", tt.host, tt.port, by, tt.want)
		}
		if ok && got.Host != tt.host {
			t.Errorf("%s:%d has the host %q", tt.host, tt.port, got.Host)
		}
		if has := table.has(tt.host); has != (len(table.grants(tt.host)) > 0) {
			t.Errorf("has(%s) = %v", tt.host, has)
		}
	}
	var ports []uint16
	for _, r := range singlePorts(table.grants("api.example.com")) {
		if r.First != r.Last || r.Protocol != ruleset.TCP {
			t.Errorf("range %v", r)
		}
		ports = append(ports, r.First)
	}
	if diff := cmp.Diff([]uint16{80, 443, 7000, 8443, 9000}, ports); diff != "" {
		t.Error(diff)
	}
}

func TestNameTableRefuses(t *testing.T) {
	wide := named("example.org")
	wide.Ports = []config.PortRange{{First: 1, Last: 64}}
	if _, err := newNameTable(nil, []config.EgressRule{wide}); err != nil {
		t.Errorf("64 ports: %v", err)
	}
	wide.Ports[0].Last = 65
	udp := named("example.org", 53)
	udp.Protocol = config.ProtocolUDP
	for want, rule := range map[string]config.EgressRule{
		"has 65 TCP ports":         wide,
		"has 0 TCP ports":          named("example.org"),
		"the name example.org has": udp,
		"not a host name":          named("a*.example.org", 1),
		"host name; a wildcard":    named("a.*.example.org", 1),
		`"**." is not a host name`: named("**.", 1),
	} {
		_, err := newNameTable(nil, []config.EgressRule{rule})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.yaml:3") {
			t.Errorf("%s: %v, want %q", rule.Name, err, want)
		}
	}
	_, err := newNameTable([]*tool.Tool{{Name: "x", Hosts: []tool.Host{{Name: "*.a"}}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "tool x") {
		t.Errorf("tool: %v", err)
	}
}
