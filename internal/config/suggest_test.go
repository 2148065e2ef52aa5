package config

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

func to(name, addr string, port uint16, protocol string) Destination {
	d := Destination{Name: name, Port: port, Protocol: protocol}
	if addr != "" {
		d.Addr = netip.MustParseAddr(addr)
	}
	return d
}

// layouts are the ways in which an agent's rules may be written.
func layouts() map[string]string {
	return map[string]string{
		"block":        "agent: a\negress:\n  - { name: x.example.org, ports: [443] }\n  - name: y.example.org\n    ports:\n      - 443\nowner: me\n",
		"not indented": "agent: a\negress:\n- name: x.example.org\n  ports: [443]\n  why: >\n    folded\nowner: me\n",
		"last":         "owner: me\nagent: a\negress:\n    - { name: x.example.org, ports: [443] }\n",
		"missing":      "agent: a\nowner: me\n---\nagent: b\n",
		"empty":        "agent: a\negress: []\nowner: me\n",
	}
}

// What Suggest returns is written to the file; then it must allow the
// destination, and nothing must be wrong.
func TestSuggestRoundTrip(t *testing.T) {
	for layout, text := range layouts() {
		for _, d := range []Destination{
			to("api.example.org", "", 443, "tcp"),
			to("API.Example.org", "198.18.0.7", 8443, "tcp"),
			to("1.5e3", "", 443, "tcp"),
			to("null", "", 443, "tcp"),
			to("", "203.0.113.7", 5432, "tcp"),
			to("", "::ffff:203.0.113.7", 5432, "tcp"),
			to("", "2001:db8::7", 443, "tcp"),
			to("time.example.org", "203.0.113.9", 123, "udp"),
		} {
			dir := t.TempDir()
			write(t, dir, nodeFile, trust)
			path := write(t, dir, "agents.d/a.yaml", text)
			cfg, err := Load(dir)
			must(t, err)
			s, err := cfg.Suggest("a", d)
			if err != nil || s.File != path {
				t.Fatalf("%s: Suggest(%v) = %+v, %v", layout, d, s, err)
			}
			must(t, os.WriteFile(path, []byte(apply(text, s)), 0o644))
			cfg, err = Load(dir)
			if err != nil {
				t.Fatalf("%s: %v\n%s", layout, err, apply(text, s))
			}
			if _, err := cfg.Suggest("a", d); err == nil || !strings.Contains(err.Error(), "is allowed by the rule at "+path) {
				t.Errorf("%s: %v is not allowed: %v\n%s", layout, d, err, apply(text, s))
			}
		}
	}
}

// apply does what a person does with a suggestion.
func apply(text string, s Suggestion) string {
	lines := strings.Split(text, "\n")
	after := s.Line
	if s.Replace {
		after--
	}
	return strings.Join(append(append(append([]string{}, lines[:after]...), s.YAML), lines[s.Line:]...), "\n")
}

func suggester(t *testing.T) *Config {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, nodeFile, trust)
	write(t, dir, "agents.d/a.yaml", "agent: a\ntools: [mine]\negress: [{ name: x.example.org, ports: [443] }, { cidr: 192.0.2.0/24, protocol: any }]\n")
	for tool, host := range map[string]string{"mine": "mine.example.org:443", "other": "other.example.org:443"} {
		write(t, dir, "tools.d/"+tool+".yaml", "tool: "+tool+"\nclient: pass\nhosts: ["+host+"]\n")
	}
	cfg, err := Load(dir)
	must(t, err)
	return cfg
}

func TestSuggest(t *testing.T) {
	cfg := suggester(t)
	for _, c := range []struct {
		d          Destination
		yaml, note string
	}{
		{to("api.example.org", "", 443, "tcp"), "{ name: api.example.org, ports: [443] }", "into the brackets"},
		{to("other.example.org", "", 443, "tcp"), "{ name: other.example.org, ports: [443] }", "add other to the agent's `tools`"},
		{to("api.example.org", "", 443, "udp"), "{ name: api.example.org, ports: [443], protocol: udp, direct: true }", "into the brackets"},
		{to("", "203.0.113.7", 53000, "udp"), `{ cidr: "203.0.113.7/32", ports: [53000], protocol: udp }`, "into the brackets"},
	} {
		s, err := cfg.Suggest("a", c.d)
		if err != nil || s.YAML != c.yaml || s.Line != 3 || !strings.Contains(s.Note, c.note) {
			t.Errorf("Suggest(%v) = %+v, %v", c.d, s, err)
		}
	}
}

func TestSuggestRefuses(t *testing.T) {
	cfg := suggester(t)
	for _, c := range []struct {
		d    Destination
		want string
	}{
		{to("x.example.org", "", 443, "tcp"), "is allowed by the rule at"},
		{to("", "192.0.2.9", 9, "udp"), "is allowed by the rule at"},
		{to("", "::ffff:192.0.2.9", 9, "tcp"), "is allowed by the rule at"},
		{to("mine.example.org", "", 443, "tcp"), `belongs to tool "mine"`},
		{to("", "169.254.169.254", 80, "tcp"), "is never opened"},
		{to("", "127.0.0.1", 80, "tcp"), "is never opened"},
		{to("", "::ffff:127.0.0.1", 80, "tcp"), "is never opened"},
		{to("", "fe80::1%eth0", 80, "tcp"), "is never opened"},
		{to("", "224.0.0.1", 80, "udp"), "is never opened"},
		{to("", "", 443, "udp"), "neither a name nor an address"},
		{to("api.example.org", "", 53, "udp"), "port 53"},
		{to("", "203.0.113.7", 0, "tcp"), "is not a port"},
		{to("", "203.0.113.7", 53, "udp"), "port 53"},
		{to("", "203.0.113.7", 1, "sctp"), "only tcp and udp"},
		{to("bad name", "", 443, "tcp"), "no host name has"},
		{to("x\"]}\nowner: y", "", 443, "tcp"), "is not a host name"},
	} {
		if s, err := cfg.Suggest("a", c.d); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Suggest(%v) = %+v, %v; want %q", c.d, s, err, c.want)
		}
	}
	if _, err := cfg.Suggest("nobody", to("x", "", 1, "tcp")); err == nil {
		t.Error("no error for an unknown agent")
	}
}

func TestWhere(t *testing.T) {
	a := suggester(t).Agents["a"]
	if a.Where("egress").Line != 3 || a.Where("files") != a.Pos || a.Egress[1].Pos.Line != 3 {
		t.Errorf("egress %v, files %v", a.Where("egress"), a.Where("files"))
	}
}
