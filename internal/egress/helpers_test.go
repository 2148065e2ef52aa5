package egress

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/testutil"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

func TestMain(m *testing.M) { testutil.Main(m) }

var errFake = errors.New("fake failure")

// fakeEvents keeps events in memory.
type fakeEvents struct {
	mu       sync.Mutex
	ruleSets []RuleSetEvent
	names    []NameEvent
	fault    error
	onRule   func()
}

func (f *fakeEvents) RuleSet(_ context.Context, e RuleSetEvent) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.onRule != nil {
		f.onRule()
	}
	if f.fault == nil {
		f.ruleSets = append(f.ruleSets, e)
	}
	return f.fault
}

func (f *fakeEvents) Name(_ context.Context, e NameEvent) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault == nil {
		f.names = append(f.names, e)
	}
	return f.fault
}

func (f *fakeEvents) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
}

func (f *fakeEvents) taken() []NameEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.names
	f.names = nil
	return names
}

// deciderFunc decides by a function.
type deciderFunc func(r decision.Request) (decision.Decision, error)

func (f deciderFunc) Decide(_ context.Context, r decision.Request) (decision.Decision, error) {
	return f(r)
}

func allowAll(decision.Request) (decision.Decision, error) {
	return decision.Decision{Effect: decision.EffectAllow}, nil
}

// rig is a controller and a server with fakes around them.
type rig struct {
	*Controller
	server   *Server
	datapath *testutil.Datapath
	events   *fakeEvents
	run      *workload.Run
}

const testCgroup = 4711

func newRig(t testing.TB, limits Limits, agent *config.Agent, tools ...*tool.Tool) *rig {
	t.Helper()
	r := &rig{datapath: testutil.NewDatapath(1000), events: &fakeEvents{}}
	r.Controller = NewController(Options{
		Datapath: r.datapath, Gate: r.datapath, Leaser: r.datapath, Snapshot: NewScope().Snapshot, Decider: deciderFunc(allowAll), Events: r.events,
		Log: slog.New(slog.DiscardHandler), Limits: limits,
	})
	r.server = NewServer(r.Controller, everybody(testCgroup), nil)
	r.run = newRun(testCgroup, agent, tools...)
	r.datapath.AddRun(testCgroup)
	if _, err := r.Apply(t.Context(), r.run); err != nil {
		t.Fatal(err)
	}
	return r
}

func newRun(cgroup uint64, agent *config.Agent, tools ...*tool.Tool) *workload.Run {
	mode := agent.Mode
	if mode == "" {
		mode = decision.ModeEnforce
	}
	return &workload.Run{
		Run:   decision.Run{ID: "run_01", Agent: "tester", Mode: mode},
		Actor: decision.Actor{Account: "spiffe://example.org/agent/tester"},
		Agent: agent, Tools: tools, CgroupID: cgroup,
	}
}

// everybody is a PeerFinder for whom everybody is one run.
type everybody uint64

func (e everybody) PeerOf(_, _ netip.AddrPort) (uint64, bool) { return uint64(e), true }

// nobody is a PeerFinder who knows nobody.
type nobody struct{}

func (nobody) PeerOf(_, _ netip.AddrPort) (uint64, bool) { return 0, false }

// named is an egress rule for a name.
func named(name string, ports ...uint16) config.EgressRule {
	r := config.EgressRule{Name: name, Protocol: config.ProtocolTCP, Pos: config.Position{File: "a.yaml", Line: 3}}
	for _, p := range ports {
		r.Ports = append(r.Ports, config.PortRange{First: p, Last: p})
	}
	return r
}

func ranged(cidr, protocol string, ports ...config.PortRange) config.EgressRule {
	return config.EgressRule{
		CIDR: netip.MustParsePrefix(cidr), Protocol: protocol, Ports: ports, Pos: config.Position{File: "a.yaml", Line: 9},
	}
}

func agentWith(rules ...config.EgressRule) *config.Agent {
	return &config.Agent{Name: "tester", Egress: rules}
}

// ask puts a question to the rig's server as the DNS message it would be.
func (r *rig) ask(t testing.TB, q *dns.Msg) *dns.Msg {
	t.Helper()
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	raw := r.raw(t, wire, maxUDP)
	if raw == nil {
		t.Fatalf("no answer to %v", q)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(raw); err != nil {
		t.Fatalf("answer to %v: %v", q, err)
	}
	return answer
}

// raw puts bytes to the rig's server.
func (r *rig) raw(t testing.TB, wire []byte, limit int) []byte {
	t.Helper()
	state, ok := r.state(testCgroup)
	if !ok {
		t.Fatal("the run is gone")
	}
	q, answer := r.server.parse(state, wire, limit)
	if q != nil {
		answer = q.known()
	}
	if q != nil && answer == nil {
		answer = r.server.reply(t.Context(), q)
	}
	return answer
}

func (r *rig) stats(t testing.TB) Stats {
	t.Helper()
	s, ok := r.Stats(testCgroup)
	if !ok {
		t.Fatal("the run is gone")
	}
	return s
}

// ask makes a question; with EDNS, as most resolvers ask.
func ask(name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	return q
}

// addrOf returns the one address of an answer.
func addrOf(t testing.TB, m *dns.Msg) netip.Addr {
	t.Helper()
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("not one address: %v", m)
	}
	addr, ok := address(m.Answer[0], m.Question[0].Name, m.Question[0].Qtype)
	if !ok {
		t.Fatalf("not the address that was asked for: %v", m)
	}
	return addr
}
