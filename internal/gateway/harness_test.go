package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encoding/pem"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

const (
	cgroup = 4711
	canary = "canary-5e1f0c9a-token"
	host   = "api.example.com"
)

// attributor is the kernel's part: it knows a connection by its client's
// address. It waits for what the test says of a new one.
type attributor struct {
	mu    sync.Mutex
	known map[string]chan attribution
}

type attribution struct {
	cgroup uint64
	dst    netip.AddrPort
	err    error
}

func (a *attributor) slot(client net.Addr) chan attribution {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[client.String()] == nil {
		a.known[client.String()] = make(chan attribution, 1)
	}
	return a.known[client.String()]
}

func (a *attributor) Attribute(c *net.TCPConn) (uint64, uint64, netip.AddrPort, error) {
	select {
	case at := <-a.slot(c.RemoteAddr()):
		return at.cgroup, 1, at.dst, at.err
	case <-time.After(10 * time.Second):
		return 0, 0, netip.AddrPort{}, errors.New("the test did not attribute the connection")
	}
}

// names, resolver and tokens are what egress and the broker would be.
type names struct {
	mu sync.Mutex
	m  map[netip.AddrPort]gateway.Name
	// spent are hosts for which the run has no budget left.
	spent map[string]bool
}

func (n *names) Admit(id uint64, host string) (decision.Reason, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return decision.Reason{Rule: "name.distinct", Text: "Too many names."}, id == cgroup && !n.spent[host]
}

func (n *names) Lookup(id uint64, dst netip.AddrPort) (gateway.Name, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.m[dst]
	return name, ok && id == cgroup
}

func (n *names) set(dst netip.AddrPort, name gateway.Name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.m[dst] = name
}

func (n *names) remove(dst netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.m, dst)
}

type resolver struct {
	addrs []netip.Addr
	check func(netip.Addr) error
	asked atomic.Int64
}

func (r *resolver) Resolve(context.Context, string) ([]netip.Addr, error) {
	r.asked.Add(1)
	return r.addrs, nil
}

func (r *resolver) Check(a netip.Addr, _ []netip.Prefix) error {
	if r.check != nil {
		return r.check(a)
	}
	return nil
}

type tokens struct {
	n   atomic.Int64
	err error
}

func (t *tokens) Token(_ context.Context, _ *workload.Run, tl *tool.Tool) (broker.Lease, error) {
	t.n.Add(1)
	if t.err != nil {
		return broker.Lease{}, t.err
	}
	return broker.Lease{Token: broker.NewSecret(canary), Audience: tl.Credential.Issuer.Audience, Expires: time.Now().Add(time.Minute)}, nil
}

// judge is policy, approver and recorder.
type judge struct {
	mu        sync.Mutex
	verdict   func(decision.Request) decision.Verdict
	granted   map[string]bool // digests that somebody has approved
	claimed   map[string]bool
	recorded  []decision.Decision
	requests  []decision.Request
	asked     int
	abandoned []string
	fail      error // of the recorder
}

func (j *judge) Evaluate(_ context.Context, r decision.Request) (decision.Verdict, error) {
	if j.verdict != nil {
		return j.verdict(r), nil
	}
	v := decision.Verdict{Effect: decision.EffectAllow, Reasons: []decision.Reason{{Rule: "test.allow", Text: "Allowed."}}, Revision: "p1"}
	switch r.Risk {
	case decision.RiskUnknown:
		v.Effect, v.Reasons = decision.EffectDeny, []decision.Reason{{Rule: "http.no-action", Text: "No action of the tool matches."}}
	case decision.RiskIrreversible:
		v.Effect, v.Need = decision.EffectHold, &decision.Need{Kind: decision.FourEyes, Quorum: 1, Expires: time.Hour}
	}
	return v, nil
}

func (j *judge) Ask(_ context.Context, r decision.Request, _ decision.Verdict) (decision.Resolution, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked++
	res := decision.Resolution{
		Status: decision.StatusPending, ApprovalID: "apr_" + r.Digest[7:15], Expires: time.Now().Add(time.Hour),
		Reason: decision.Reason{Rule: "approval.pending", Text: "A person has to approve it."},
	}
	switch {
	case j.claimed[r.Digest]:
		res.Status, res.Reason = decision.StatusUsed, decision.Reason{Rule: "approval.used", Text: "It was started before."}
	case j.granted[r.Digest]:
		j.claimed[r.Digest] = true
		res.Status = decision.StatusGranted
	}
	return res, nil
}

func (j *judge) Record(_ context.Context, r decision.Request, d decision.Decision, _ decision.Promise) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.recorded, j.requests = append(j.recorded, d), append(j.requests, r)
	return j.fail
}

func (j *judge) Abandon(_ context.Context, id, _ string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.abandoned = append(j.abandoned, id)
	return nil
}

func (j *judge) grant(digest string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.granted[digest] = true
}

func (j *judge) lastRequest() decision.Request {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.requests[len(j.requests)-1]
}

func (j *judge) decisions() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.recorded)
}

// log keeps events and settlements.
type events struct {
	mu      sync.Mutex
	all     []gateway.Event
	settled map[string][]gateway.Outcome
	more    chan struct{}
}

func (e *events) Append(_ context.Context, ev gateway.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
	close(e.more)
	e.more = make(chan struct{})
	return nil
}

func (e *events) Settle(_ context.Context, id string, o gateway.Outcome) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settled[id] = append(e.settled[id], o)
	return nil
}

// wait returns the first event that is wanted.
func (e *events) wait(t testing.TB, want func(gateway.Event) bool) gateway.Event {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		e.mu.Lock()
		for _, ev := range e.all {
			if want(ev) {
				e.mu.Unlock()
				return ev
			}
		}
		more := e.more
		e.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no such event; there are %+v", e.all)
		}
	}
}

func (e *events) outcomes(id string) []gateway.Outcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]gateway.Outcome(nil), e.settled[id]...)
}

func refused(rule string) func(gateway.Event) bool {
	return func(e gateway.Event) bool { return e.Activity == gateway.ActivityRefused && e.Reason.Rule == rule }
}

func outcome(e gateway.Event) bool { return e.Activity == gateway.ActivityOutcome }

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// harness is a gateway with everything around it.
type harness struct {
	t        testing.TB
	addr     string
	attr     *attributor
	names    *names
	resolver *resolver
	judge    *judge
	tokens   *tokens
	events   *events
	logs     *syncBuffer
	runs     *workload.Registry
	run      *workload.Run
	gw       *gateway.Gateway
	endpoint gateway.Handler
	dns      gateway.Handler
}

func start(t testing.TB, change ...func(*gateway.Options)) *harness {
	t.Helper()
	h := &harness{
		t:        t,
		attr:     &attributor{known: map[string]chan attribution{}},
		names:    &names{m: map[netip.AddrPort]gateway.Name{}},
		resolver: &resolver{addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
		judge:    &judge{granted: map[string]bool{}, claimed: map[string]bool{}},
		tokens:   &tokens{},
		events:   &events{settled: map[string][]gateway.Outcome{}, more: make(chan struct{})},
		logs:     &syncBuffer{},
		runs:     workload.NewRegistry(),
	}
	h.run = &workload.Run{
		Run:      decision.Run{ID: "run_1", Agent: "bot", Mode: decision.ModeEnforce},
		Actor:    decision.Actor{Account: "spiffe://example.org/agent/bot"},
		CgroupID: cgroup, Agent: &config.Agent{Name: "bot"},
	}
	if err := h.runs.Add(h.run); err != nil {
		t.Fatal(err)
	}
	h.serve(change)
	return h
}

func (h *harness) serve(change []func(*gateway.Options)) {
	log := slog.New(slog.NewTextHandler(h.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var id atomic.Int64
	engine := &decision.Engine{
		Evaluator: h.judge, Approver: h.judge, Recorder: h.judge, Now: time.Now, Log: log,
		NewID: func() string { return fmt.Sprintf("dec_%d", id.Add(1)) },
	}
	opts := gateway.Options{
		Attributor: h.attr, Runs: h.runs, Names: h.names, Resolver: h.resolver, Decider: engine,
		Tokens: h.tokens, Settler: h.events, Events: h.events, Log: log,
		Endpoint: func(ctx context.Context, c net.Conn, run *workload.Run) { h.endpoint(ctx, c, run) },
		DNS:      func(ctx context.Context, c net.Conn, run *workload.Run) { h.dns(ctx, c, run) },
	}
	for _, f := range change {
		f(&opts)
	}
	h.gw = gateway.New(opts)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.gw.Serve(ctx, l) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.t.Errorf("Serve: %v", err)
		}
		h.noCanary()
	})
}

// noCanary searches everything that was logged or recorded for the token.
func (h *harness) noCanary() {
	all := fmt.Sprintf("%s %#v %+v %#v %+v", h.logs, h.events.all, h.events.settled, h.judge.recorded, h.judge.requests)
	if bytes.Contains([]byte(all), []byte(canary)) {
		h.t.Error("the token is in a log, an event or a decision")
	}
}

// dial connects as a program of the run that means dst.
func (h *harness) dial(dst netip.AddrPort) *net.TCPConn {
	h.t.Helper()
	return h.dialAs(attribution{cgroup: cgroup, dst: dst})
}

func (h *harness) dialAs(at attribution) *net.TCPConn {
	h.t.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.attr.slot(c.LocalAddr()) <- at
	h.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// client is an HTTP client whose connections all go to dst.
func (h *harness) client(dst netip.AddrPort) *http.Client {
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			c, err := net.Dial("tcp", h.addr)
			if err == nil {
				h.attr.slot(c.LocalAddr()) <- attribution{cgroup: cgroup, dst: dst}
			}
			return c, err
		},
		MaxIdleConnsPerHost: 16,
	}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
}

// synthetic is an address that stands for a name at the server's port.
func synthetic(s *httptest.Server) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("198.18.0.7"), s.Listener.Addr().(*net.TCPAddr).AddrPort().Port())
}

// upstream starts a TLS server whose certificate, for example.com and its
// subdomains' example, is in the file that it returns.
func upstream(t testing.TB, h http.HandlerFunc) (*httptest.Server, string) {
	t.Helper()
	cert, pemFile := certificate(t, host)
	s := httptest.NewUnstartedServer(h)
	s.TLS = cert
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, pemFile
}

// writePEM writes a certificate for ca_file.
func writePEM(t testing.TB, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// httpTool is a tool in http mode with one action of each risk.
func httpTool(t testing.TB, port uint16, caFile string) *tool.Tool {
	t.Helper()
	action := func(name string, risk decision.Risk, path string, methods ...string) tool.Action {
		template, err := tool.ParseTemplate(path)
		if err != nil {
			t.Fatal(err)
		}
		return tool.Action{
			Name: name, Risk: risk, HTTP: tool.HTTP{Methods: methods, Path: template}, Threshold: 1,
			MaxBody: 1 << 10, DigestHeaders: []string{"X-Covered"},
		}
	}
	tl := &tool.Tool{
		Name: "api", Hosts: []tool.Host{{Name: host, Port: port}},
		Client: tool.ClientHTTP, Upstream: tool.UpstreamTLS, CAFile: caFile,
		Credential: &tool.Credential{
			Issuer: tool.Issuer{Audience: "https://" + host},
			Attach: &tool.Attach{Header: "Authorization", Value: "Bearer " + tool.TokenPlaceholder},
		},
		Actions: []tool.Action{
			action("items.read", decision.RiskRead, "/items/**", "GET", "POST"),
			action("items.write", decision.RiskWrite, "/items/**", "PUT"),
			action("items.delete", decision.RiskIrreversible, "/items/**", "DELETE"),
		},
	}
	if err := tl.Seal(); err != nil {
		t.Fatal(err)
	}
	return tl
}

// withHTTP starts a gateway with one tool in front of handler.
func withHTTP(t testing.TB, handler http.HandlerFunc) (*harness, netip.AddrPort, *tool.Tool) {
	t.Helper()
	s, caFile := upstream(t, handler)
	dst := synthetic(s)
	tl := httpTool(t, dst.Port(), caFile)
	h := start(t)
	h.names.set(dst, gateway.Name{Host: host, Tool: tl})
	return h, dst, tl
}

// do sends a request with the Host that the tool has.
func (h *harness) do(dst netip.AddrPort, method, path, body string, header http.Header) (*http.Response, string) {
	h.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = bytes.NewReader([]byte(body))
	}
	r, err := http.NewRequest(method, fmt.Sprintf("http://%s:%d%s", host, dst.Port(), path), reader)
	if err != nil {
		h.t.Fatal(err)
	}
	for k, v := range header {
		r.Header[k] = v
	}
	resp, err := h.client(dst).Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp, string(data)
}

// slowDecider holds until the caller gives up, then answers that it is pending.
type slowDecider struct {
	judge  *judge
	asking chan struct{}
}

func (d *slowDecider) Decide(ctx context.Context, _ decision.Request) (decision.Decision, error) {
	close(d.asking)
	<-ctx.Done()
	return decision.Decision{ID: "dec_slow", Effect: decision.EffectHold, ApprovalID: "apr_slow"}, nil
}
