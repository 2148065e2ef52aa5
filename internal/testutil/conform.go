package testutil

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/ruleset"
)

// Conforming is what a datapath has to offer to be tested: the methods of
// egress.Datapath.
type Conforming interface {
	LoadRuleSet(rs *ruleset.RuleSet) error
	UseRuleSet(cgroupID uint64, id string) error
	AllowName(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error
}

// ConformingLeases are the methods of egress.Leaser.
type ConformingLeases interface {
	Lease(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange, period time.Duration) error
	Withdraw(cgroupID uint64, addr netip.Addr, ports []ruleset.PortRange) error
}

// Bench is a datapath on the test bench. Judge tries a connection of a run; a
// real datapath does so by connecting from a process in the run's cgroup. Only
// documentation addresses and synthetic ones are tried.
type Bench struct {
	Datapath Conforming
	Leases   ConformingLeases
	NewRun   func() (cgroupID uint64)
	Judge    func(cgroupID uint64, dst netip.AddrPort, proto ruleset.Protocol) Verdict
}

// ConformDatapath tests that a datapath keeps the contract of egress.Datapath.
// newBench is called once for each part of the suite.
func ConformDatapath(t *testing.T, newBench func(t *testing.T) Bench) {
	for name, part := range map[string]func(*testing.T, Bench){
		"nothing is allowed at first":      conformEmpty,
		"rules are judged":                 conformRules,
		"a rule set is used by its id":     conformUnknown,
		"loading again does nothing":       conformIdempotent,
		"a switch is complete":             conformSwitch,
		"runs are apart":                   conformApart,
		"names are redirected":             conformNames,
		"names are added to":               conformNamesAdd,
		"names outlive a switch":           conformNamesSwitch,
		"an empty rule set allows nothing": conformEmptySet,
		"leases are direct":                conformLeases,
		"leases end":                       conformLeaseEnd,
		"leases are withdrawn":             conformWithdraw,
	} {
		t.Run(name, func(t *testing.T) { part(t, newBench(t)) })
	}
}

// attempt is a connection and what should become of it.
type attempt struct {
	dst   string
	proto ruleset.Protocol
	want  Verdict
}

func (b Bench) try(t *testing.T, run uint64, attempts ...attempt) {
	t.Helper()
	for _, a := range attempts {
		if got := b.Judge(run, netip.MustParseAddrPort(a.dst), a.proto); got != a.want {
			t.Errorf("protocol %d to %s: %s, want %s", a.proto, a.dst, got, a.want)
		}
	}
}

// use compiles, loads and uses rules, and returns the id of the rule set.
func (b Bench) use(t *testing.T, run uint64, rules ...ruleset.Rule) string {
	t.Helper()
	rs := compile(t, rules...)
	if err := b.Datapath.LoadRuleSet(rs); err != nil {
		t.Fatalf("load: %v", err)
	}
	if err := b.Datapath.UseRuleSet(run, rs.ID); err != nil {
		t.Fatalf("use: %v", err)
	}
	return rs.ID
}

func compile(t *testing.T, rules ...ruleset.Rule) *ruleset.RuleSet {
	t.Helper()
	rs, err := ruleset.Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func allow(prefix string, proto ruleset.Protocol, first, last uint16) ruleset.Rule {
	return ruleset.Rule{
		Prefix: netip.MustParsePrefix(prefix),
		Ports:  []ruleset.PortRange{{First: first, Last: last, Protocol: proto}},
	}
}

func ports(numbers ...uint16) []ruleset.PortRange {
	var list []ruleset.PortRange
	for _, n := range numbers {
		list = append(list, ruleset.PortRange{First: n, Last: n, Protocol: ruleset.TCP})
	}
	return list
}

func conformEmpty(t *testing.T, b Bench) {
	run := b.NewRun()
	b.try(t, run,
		attempt{"192.0.2.1:443", ruleset.TCP, Deny},
		attempt{"192.0.2.1:443", ruleset.UDP, Deny},
		attempt{"[2001:db8::1]:443", ruleset.TCP, Deny},
		attempt{"198.18.0.1:443", ruleset.TCP, Deny})
}

func conformEmptySet(t *testing.T, b Bench) {
	run := b.NewRun()
	b.use(t, run, allow("192.0.2.0/24", ruleset.TCP, 443, 443))
	b.use(t, run)
	b.try(t, run, attempt{"192.0.2.1:443", ruleset.TCP, Deny})
}

func conformRules(t *testing.T, b Bench) {
	run := b.NewRun()
	b.use(t, run,
		allow("192.0.2.0/24", ruleset.TCP, 5000, 5010),
		allow("192.0.2.128/25", ruleset.TCP, 6000, 6000),
		allow("192.0.2.200/32", ruleset.UDP, 7000, 7000),
		allow("2001:db8::/32", ruleset.TCP, 5000, 5000),
		allow("2001:db8::5/128", ruleset.UDP, 7000, 7000))
	b.try(t, run,
		attempt{"192.0.2.1:5000", ruleset.TCP, Direct},
		attempt{"192.0.2.1:5010", ruleset.TCP, Direct},
		attempt{"192.0.2.1:4999", ruleset.TCP, Deny},
		attempt{"192.0.2.1:5011", ruleset.TCP, Deny},
		attempt{"192.0.2.1:5000", ruleset.UDP, Deny},
		attempt{"192.0.2.1:6000", ruleset.TCP, Deny},
		attempt{"192.0.2.129:6000", ruleset.TCP, Direct},
		attempt{"192.0.2.129:5005", ruleset.TCP, Direct},
		attempt{"192.0.2.200:5005", ruleset.TCP, Direct},
		attempt{"192.0.2.200:6000", ruleset.TCP, Direct},
		attempt{"192.0.2.200:7000", ruleset.UDP, Direct},
		attempt{"192.0.2.201:7000", ruleset.UDP, Deny},
		attempt{"192.0.3.1:5000", ruleset.TCP, Deny},
		attempt{"[::ffff:192.0.2.1]:5000", ruleset.TCP, Direct},
		attempt{"[::ffff:192.0.2.1]:4999", ruleset.TCP, Deny},
		attempt{"[2001:db8::1]:5000", ruleset.TCP, Direct},
		attempt{"[2001:db8::1]:7000", ruleset.UDP, Deny},
		attempt{"[2001:db8::5]:7000", ruleset.UDP, Direct},
		attempt{"[2001:db8::5]:5000", ruleset.TCP, Direct},
		attempt{"[2001:db9::1]:5000", ruleset.TCP, Deny})
}

func conformUnknown(t *testing.T, b Bench) {
	run := b.NewRun()
	rs := compile(t, allow("192.0.2.0/24", ruleset.TCP, 443, 443))
	if err := b.Datapath.UseRuleSet(run, rs.ID); err == nil {
		t.Error("a rule set was used that was not loaded")
	}
	b.use(t, run, allow("198.51.100.0/24", ruleset.TCP, 443, 443))
	if err := b.Datapath.UseRuleSet(run, "no such id"); err == nil {
		t.Error("an unknown rule set was used")
	}
	b.try(t, run, attempt{"198.51.100.1:443", ruleset.TCP, Direct}, attempt{"192.0.2.1:443", ruleset.TCP, Deny})
	const nobody = 1 // no cgroup that a test makes has this id
	if err := b.Datapath.UseRuleSet(nobody, rs.ID); err == nil {
		t.Error("a rule set was given to a run that does not exist")
	}
	if err := b.Datapath.AllowName(nobody, netip.MustParseAddr("198.18.0.1"), ports(443)); err == nil {
		t.Error("a name was given to a run that does not exist")
	}
}

func conformIdempotent(t *testing.T, b Bench) {
	run := b.NewRun()
	for range 3 {
		b.use(t, run, allow("192.0.2.0/24", ruleset.TCP, 443, 443))
		b.try(t, run, attempt{"192.0.2.1:443", ruleset.TCP, Direct}, attempt{"192.0.2.1:80", ruleset.TCP, Deny})
	}
}

func conformSwitch(t *testing.T, b Bench) {
	run := b.NewRun()
	for i := range 3 {
		port := uint16(1000 + i)
		b.use(t, run, allow("192.0.2.0/24", ruleset.TCP, port, port))
		for j := range 3 {
			want := Deny
			if i == j {
				want = Direct
			}
			b.try(t, run, attempt{fmt.Sprintf("192.0.2.1:%d", 1000+j), ruleset.TCP, want})
		}
	}
}

func conformApart(t *testing.T, b Bench) {
	one, two := b.NewRun(), b.NewRun()
	b.use(t, one, allow("192.0.2.0/24", ruleset.TCP, 443, 443))
	if err := b.Datapath.AllowName(one, netip.MustParseAddr("198.18.0.1"), ports(443)); err != nil {
		t.Fatal(err)
	}
	b.try(t, one, attempt{"192.0.2.1:443", ruleset.TCP, Direct}, attempt{"198.18.0.1:443", ruleset.TCP, Redirect})
	b.try(t, two, attempt{"192.0.2.1:443", ruleset.TCP, Deny}, attempt{"198.18.0.1:443", ruleset.TCP, Deny})
}

func conformNames(t *testing.T, b Bench) {
	run := b.NewRun()
	for _, addr := range []string{"198.18.0.1", "fd56:6172:7665:6c00::1"} {
		if err := b.Datapath.AllowName(run, netip.MustParseAddr(addr), ports(443, 8443)); err != nil {
			t.Fatal(err)
		}
	}
	b.try(t, run,
		attempt{"198.18.0.1:443", ruleset.TCP, Redirect},
		attempt{"198.18.0.1:8443", ruleset.TCP, Redirect},
		attempt{"198.18.0.1:444", ruleset.TCP, Deny},
		attempt{"198.18.0.1:443", ruleset.UDP, Deny},
		attempt{"198.18.0.2:443", ruleset.TCP, Deny},
		attempt{"[::ffff:198.18.0.1]:443", ruleset.TCP, Redirect},
		attempt{"[fd56:6172:7665:6c00::1]:443", ruleset.TCP, Redirect},
		attempt{"[fd56:6172:7665:6c00::1]:80", ruleset.TCP, Deny},
		attempt{"[fd56:6172:7665:6c00::2]:443", ruleset.TCP, Deny})
}

func conformNamesAdd(t *testing.T, b Bench) {
	run, addr := b.NewRun(), netip.MustParseAddr("198.18.0.1")
	for _, list := range [][]ruleset.PortRange{ports(443), ports(443), ports(80), nil} {
		if err := b.Datapath.AllowName(run, addr, list); err != nil {
			t.Fatal(err)
		}
	}
	b.try(t, run,
		attempt{"198.18.0.1:443", ruleset.TCP, Redirect},
		attempt{"198.18.0.1:80", ruleset.TCP, Redirect},
		attempt{"198.18.0.1:81", ruleset.TCP, Deny})
}

func conformNamesSwitch(t *testing.T, b Bench) {
	run := b.NewRun()
	b.use(t, run, allow("192.0.2.0/24", ruleset.TCP, 443, 443))
	if err := b.Datapath.AllowName(run, netip.MustParseAddr("198.18.0.1"), ports(443)); err != nil {
		t.Fatal(err)
	}
	b.use(t, run, allow("198.51.100.0/24", ruleset.TCP, 443, 443))
	b.try(t, run, attempt{"198.18.0.1:443", ruleset.TCP, Redirect}, attempt{"192.0.2.1:443", ruleset.TCP, Deny})
}

func udp(n uint16) ruleset.PortRange {
	return ruleset.PortRange{First: n, Last: n, Protocol: ruleset.UDP}
}

// lease leases addresses.
func (b Bench) lease(t *testing.T, run uint64, period time.Duration, ports []ruleset.PortRange, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		if err := b.Leases.Lease(run, netip.MustParseAddr(a), ports, period); err != nil {
			t.Fatal(err)
		}
	}
}

func conformLeases(t *testing.T, b Bench) {
	run, other := b.NewRun(), b.NewRun()
	b.lease(t, run, time.Hour, append(ports(443), udp(3478)), "192.0.2.1", "2001:db8::1")
	b.try(t, run,
		attempt{"192.0.2.1:443", ruleset.TCP, Direct},
		attempt{"[::ffff:192.0.2.1]:443", ruleset.TCP, Direct},
		attempt{"192.0.2.1:3478", ruleset.UDP, Direct},
		attempt{"[2001:db8::1]:443", ruleset.TCP, Direct},
		attempt{"[2001:db8::1]:3478", ruleset.UDP, Direct},
		attempt{"192.0.2.1:443", ruleset.UDP, Deny},
		attempt{"192.0.2.1:3478", ruleset.TCP, Deny},
		attempt{"192.0.2.1:444", ruleset.TCP, Deny},
		attempt{"192.0.2.2:443", ruleset.TCP, Deny},
		attempt{"[2001:db8::2]:443", ruleset.TCP, Deny})
	b.try(t, other, attempt{"192.0.2.1:443", ruleset.TCP, Deny}, attempt{"192.0.2.1:3478", ruleset.UDP, Deny})
	const nobody = 1 // no cgroup that a test makes has this id
	if err := b.Leases.Lease(nobody, netip.MustParseAddr("192.0.2.1"), ports(443), time.Hour); err == nil {
		t.Error("a lease was given to a run that does not exist")
	}
}

func conformLeaseEnd(t *testing.T, b Bench) {
	run := b.NewRun()
	both := append(ports(443), udp(3478))
	for _, period := range []time.Duration{0, -time.Hour} {
		b.lease(t, run, time.Hour, both, "192.0.2.1")
		b.try(t, run, attempt{"192.0.2.1:443", ruleset.TCP, Direct}, attempt{"192.0.2.1:3478", ruleset.UDP, Direct})
		b.lease(t, run, period, both, "192.0.2.1")
		b.try(t, run, attempt{"192.0.2.1:443", ruleset.TCP, Deny}, attempt{"192.0.2.1:3478", ruleset.UDP, Deny})
	}
	b.use(t, run, allow("192.0.2.0/24", ruleset.TCP, 443, 443))
	b.try(t, run, attempt{"192.0.2.1:443", ruleset.TCP, Direct}, attempt{"192.0.2.1:3478", ruleset.UDP, Deny})
}

func conformWithdraw(t *testing.T, b Bench) {
	run := b.NewRun()
	b.lease(t, run, time.Hour, ports(443, 80), "192.0.2.1", "192.0.2.2")
	if err := b.Leases.Withdraw(run, netip.MustParseAddr("192.0.2.1"), ports(443)); err != nil {
		t.Fatal(err)
	}
	b.try(t, run,
		attempt{"192.0.2.1:443", ruleset.TCP, Deny},
		attempt{"192.0.2.1:80", ruleset.TCP, Direct},
		attempt{"192.0.2.2:443", ruleset.TCP, Direct})
	for range 2 {
		if err := b.Leases.Withdraw(run, netip.MustParseAddr("192.0.2.1"), ports(443, 80)); err != nil {
			t.Fatal(err)
		}
	}
	b.try(t, run, attempt{"192.0.2.1:80", ruleset.TCP, Deny})
}
