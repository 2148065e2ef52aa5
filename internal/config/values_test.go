package config

import (
	"net/netip"
	"testing"
	"time"
)

func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a.example.org", "a.example.org", true},
		{"a.example.org", "b.a.example.org", false},
		{"*.example.org", "a.example.org", true},
		{"*.example.org", "a.b.example.org", false},
		{"*.example.org", "example.org", false},
		{"*.example.org", ".example.org", false},
		{"*.example.org", "aexample.org", false},
		{"**.example.org", "a.example.org", true},
		{"**.example.org", "a.b.example.org", true},
		{"**.example.org", "example.org", false},
		{"**.example.org", ".example.org", false},
		{"**.example.org", "badexample.org", false},
		{"**.example.org", "a.example.org.evil.example", false},
	} {
		if got := MatchName(c.pattern, c.name); got != c.want {
			t.Errorf("MatchName(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestForbiddenAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1": "loopback", "::1": "loopback", "::ffff:127.9.9.9": "loopback",
		"169.254.169.254": "yes", "::ffff:169.254.169.254": "yes", "fe80::1%eth0": "yes", "0.0.0.0": "yes", "::": "yes",
		"224.0.0.1": "yes", "ff02::1": "yes", "255.255.255.255": "yes", "fd00:ec2::254": "yes", "168.63.129.16": "yes",
		"198.18.0.1": "yes", "198.19.255.255": "yes", "fd56:6172:7665:6c00::1": "yes",
		"10.0.0.1": "", "192.0.2.1": "", "8.8.8.8": "", "fd00::1": "", "2001:db8::1": "", "198.20.0.1": "", "168.63.129.17": "",
	} {
		_, loopback, bad := ForbiddenAddress(netip.MustParseAddr(addr))
		if bad != (want != "") || loopback != (want == "loopback") {
			t.Errorf("ForbiddenAddress(%s) = %v, %v", addr, loopback, bad)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"20s": 20 * time.Second, "1h30m": 90 * time.Minute, "30d": 720 * time.Hour, "0s": 0, "500ms": 500 * time.Millisecond} {
		if got, err := parseDuration(in); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "20", "d", "-1d", "1.5d", "1d2h", "99999999d", "s"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("parseDuration(%q) = %v", in, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]ByteSize{"1B": 1, "1kB": 1000, "1KiB": 1024, "64MiB": 64 << 20, "10GB": 1e10, "2TiB": 2 << 40, "0B": 0} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "64", "MiB", "-1B", "1.5MiB", "1mib", "1 MiB", "1Mi", "99999999TiB", "99999999999999999999B", "+1B"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d", in, got)
		}
	}
	for n, want := range map[ByteSize]string{0: "0B", 1000: "1000B", 1024: "1KiB", 64 << 20: "64MiB", 3 << 39: "1536GiB"} {
		if got := n.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(n), got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"egres", "egress", 1}, {"dri", "dir", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want || distance(c.b, c.a) != got {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestJoinPorts(t *testing.T) {
	got := joinPorts([]PortRange{{65535, 65535}, {80, 90}, {85, 100}, {101, 101}, {1, 1}, {3, 3}, {65534, 65535}})
	want := []PortRange{{1, 1}, {3, 3}, {80, 101}, {65534, 65535}}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestNameserversDefault(t *testing.T) {
	if got := nameservers("testdata/no-such-file"); len(got) != 1 || got[0] != "127.0.0.1:53" {
		t.Errorf("got %v", got)
	}
}
