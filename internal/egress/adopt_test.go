package egress

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/testutil"
)

// namesInMemory keeps names as a later daemon finds them.
type namesInMemory struct {
	names []KnownName
	fault error
}

func (k *namesInMemory) KeepName(_ string, n KnownName) error {
	if k.fault == nil {
		k.names = append(k.names, n)
	}
	return k.fault
}

// keptRig is a controller whose names are kept; its run is adopted if there is
// something to adopt.
func keptRig(t *testing.T, keeper *namesInMemory, known []KnownName, rules ...config.EgressRule) *rig {
	t.Helper()
	r := &rig{datapath: testutil.NewDatapath(1000), events: &fakeEvents{}}
	r.Controller = NewController(Options{
		Datapath: r.datapath, Gate: r.datapath, Decider: deciderFunc(allowAll), Events: r.events, Log: slog.New(slog.DiscardHandler), Keeper: keeper,
	})
	r.server = NewServer(r.Controller, everybody(testCgroup), nil)
	r.run = newRun(testCgroup, agentWith(rules...))
	r.datapath.AddRun(testCgroup)
	var err error
	if known != nil {
		_, err = r.Adopt(t.Context(), r.run, known)
	} else {
		_, err = r.Apply(t.Context(), r.run)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAddressesMeanTheSameForTheNextDaemon also where the order in which names
// are asked for, or the configuration, would give them others.
func TestAddressesMeanTheSameForTheNextDaemon(t *testing.T) {
	keeper := &namesInMemory{}
	first := keptRig(t, keeper, nil, named("**.example.org", 443), named("gone.test", 443))
	a := addrOf(t, first.ask(t, ask("a.example.org", dns.TypeA)))
	six := addrOf(t, first.ask(t, ask("a.example.org", dns.TypeAAAA)))
	gone := addrOf(t, first.ask(t, ask("gone.test", dns.TypeA)))
	if len(keeper.names) != 2 || keeper.names[0] != (KnownName{"a.example.org", a, six}) {
		t.Fatalf("kept %v", keeper.names)
	}
	// As if another name had come first: the addresses are exchanged.
	known := []KnownName{
		{"a.example.org", gone, keeper.names[1].V6},
		{"gone.test", a, six},
	}
	next := keptRig(t, keeper, known, named("**.example.org", 443), named("new.test", 443))
	for _, tt := range []struct {
		to   netip.AddrPort
		want string
	}{
		{netip.AddrPortFrom(gone, 443), "a.example.org"},
		{netip.AddrPortFrom(known[0].V6, 443), "a.example.org"},
		{netip.AddrPortFrom(gone, 80), ""},
		{netip.AddrPortFrom(a, 443), ""}, // the configuration has it no more
	} {
		name, ok := next.Lookup(testCgroup, tt.to)
		if ok != (tt.want != "") || name.Host != tt.want {
			t.Errorf("%s is %q, %v; want %q", tt.to, name.Host, ok, tt.want)
		}
	}
	if got := next.datapath.Judge(testCgroup, netip.AddrPortFrom(gone, 443), 6); got != first.datapath.Judge(testCgroup, netip.AddrPortFrom(a, 443), 6) {
		t.Errorf("without a new question the kernel says %v", got)
	}
	if got := addrOf(t, next.ask(t, ask("a.example.org", dns.TypeA))); got != gone {
		t.Errorf("the name has %s now, and had %s", got, gone)
	}
	if len(keeper.names) != 2 {
		t.Errorf("known names were kept again: %v", keeper.names)
	}
}

// TestANameThatIsNotKeptIsNotGiven: nobody learns an address that the next
// daemon would not know.
func TestANameThatIsNotKeptIsNotGiven(t *testing.T) {
	keeper := &namesInMemory{fault: errFake}
	r := keptRig(t, keeper, nil, named("a.test", 443))
	if m := r.ask(t, ask("a.test", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("the answer is %v", m)
	}
	keeper.fault = nil
	addrOf(t, r.ask(t, ask("a.test", dns.TypeA)))
}

func TestNamesThatCannotBe(t *testing.T) {
	v4, v6 := netip.MustParseAddr("198.18.0.9"), netip.MustParseAddr("fd56:6172:7665:6c00::9")
	other4, other6 := netip.MustParseAddr("198.18.0.8"), netip.MustParseAddr("fd56:6172:7665:6c00::8")
	good := KnownName{"a.test", v4, v6}
	for _, bad := range [][]KnownName{
		{{"A.test", v4, v6}}, {{"a test", v4, v6}},
		{{"a.test", netip.MustParseAddr("192.0.2.1"), v6}}, {{"a.test", v4, netip.MustParseAddr("2001:db8::1")}},
		{good, good}, {good, {"b.test", v4, other6}}, {good, {"b.test", other4, v6}},
	} {
		c := NewController(Options{Datapath: testutil.NewDatapath(10), Decider: deciderFunc(allowAll), Events: &fakeEvents{}})
		if _, err := c.Adopt(t.Context(), newRun(testCgroup, agentWith(named("a.test", 443))), bad); err == nil {
			t.Errorf("%v was adopted", bad)
		}
	}
}
