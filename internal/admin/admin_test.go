package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/admin"
	"github.com/varvel/varvel/internal/admin/admintest"
	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// someoneElse is a user that has started runs and is not the test's.
func someoneElse() uint32 { return uint32(os.Getuid()) + 4242 }

func serve(t *testing.T) (*admintest.Node, *api.Client) {
	t.Helper()
	n := admintest.New(t, admintest.Files())
	n.Serve(t.Context(), t)
	c := api.NewClient(n.Socket)
	t.Cleanup(c.Close)
	return n, c
}

// raw sends a request as it is and returns status and problem code.
func raw(t *testing.T, socket, method, path, contentType, body string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://varvel"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode < 400 {
		return resp.StatusCode, ""
	}
	if got := resp.Header.Get("Content-Type"); got != api.ContentTypeProblem {
		t.Errorf("%s %s: content type %q", method, path, got)
	}
	var p api.Problem
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("%s %s: %v in %q", method, path, err, b)
	}
	if p.Detail == "" || p.Status != resp.StatusCode {
		t.Errorf("%s %s: problem without detail or with the wrong status: %+v", method, path, p)
	}
	return resp.StatusCode, p.Code
}

func TestReads(t *testing.T) {
	n, c := serve(t)
	run := n.AddRun(t, "run_A", "billing-bot", someoneElse(), "python3", "bot.py")
	n.Hold(t, run, decision.FourEyes, "POST /v1/refunds\n{\"amount\":1}")
	n.Health.Set(health.DNSUpstream, "198.51.100.1:53: timeout")
	ctx := t.Context()

	s, err := c.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Healthy || len(s.Findings) != 1 || s.Runs != 1 || s.Agents != 2 || s.Tools != 2 || s.ApprovalsPending != 1 || s.AuditSeq == 0 || s.PolicyRevision != admintest.Policy {
		t.Errorf("status: %+v", s)
	}
	runs, err := c.Runs(ctx)
	if err != nil || len(runs) != 1 || runs[0].ApprovalsPending != 1 || runs[0].StartedBy.UID != someoneElse() {
		t.Errorf("runs: %+v, %v", runs, err)
	}
	one, err := c.Run(ctx, "run_A")
	if err != nil || !cmp.Equal(one, runs[0]) {
		t.Errorf("run: %v", err)
	}
	early := *run
	early.Begun = false
	n.Runs.Replace(&early)
	if starting, err := c.Run(ctx, "run_A"); err != nil || one.Starting || !starting.Starting {
		t.Errorf("before it has begun: %+v, %v", starting, err)
	}
	agents, err := c.Agents(ctx)
	if err != nil || len(agents) != 2 || agents[0].Runs != 1 || len(agents[0].Egress) != 3 || agents[0].Line != 1 {
		t.Errorf("agents: %+v, %v", agents, err)
	}
	tools, err := c.Tools(ctx)
	if err != nil || len(tools) != 2 || !cmp.Equal(tools[1].Agents, []string{"billing-bot"}) || tools[1].Actions[1].Risk != decision.RiskIrreversible {
		t.Errorf("tools: %+v, %v", tools, err)
	}
	leases, err := c.Leases(ctx)
	if err != nil || len(leases) != 1 {
		t.Errorf("leases: %+v, %v", leases, err)
	}
	w, err := c.Why(ctx, "run_A", "api.stripe.com:443")
	if err != nil || w.Verdict != api.Judged {
		t.Errorf("why: %+v, %v", w, err)
	}
	if _, err := c.Run(ctx, "run_B"); status(err) != http.StatusNotFound {
		t.Errorf("a run that is not there: %v", err)
	}
}

func status(err error) int {
	var p *api.Problem
	if !errors.As(err, &p) {
		return 0
	}
	return p.Status
}

// TestInRun refuses every route to a process of a run, records it once, and
// answers the same process when it is in none.
func TestInRun(t *testing.T) {
	n, c := serve(t)
	run := n.AddRun(t, "run_A", "billing-bot", someoneElse())
	id := n.Hold(t, run, decision.FourEyes, "x")
	n.InRun.Set("run_A", nil)
	routes := []string{"GET /v1/status", "GET /v1/runs", "GET /v1/runs/run_A", "GET /v1/agents", "GET /v1/tools", "GET /v1/leases",
		"GET /v1/why?run=run_A&dest=x.example", "GET /v1/approvals", "GET /v1/approvals/" + id, "POST /v1/approvals/" + id + "/approve",
		"POST /v1/approvals/" + id + "/deny", "GET /v1/audit", "POST /v1/reload", "GET /nothing"}
	for _, r := range routes {
		method, path, _ := strings.Cut(r, " ")
		if code, problem := raw(t, n.Socket, method, path, "application/json", "{}"); code != http.StatusForbidden || problem != api.CodePeerInRun {
			t.Errorf("%s: %d %s", r, code, problem)
		}
	}
	if a, err := n.Approvals.Get(id); err != nil || a.State != approval.Pending {
		t.Errorf("the approval changed: %+v, %v", a.State, err)
	}
	n.InRun.Set("", nil)
	var refusals []audit.Event
	for e, err := range c.Events(t.Context(), api.EventQuery{Filter: audit.Filter{Kind: audit.KindConnect}}) {
		if err != nil {
			t.Fatal(err)
		}
		refusals = append(refusals, e)
	}
	if len(refusals) != 1 || refusals[0].Run != "run_A" || refusals[0].Agent != "billing-bot" || refusals[0].Effect != decision.EffectDeny || refusals[0].Process.PID != os.Getpid() {
		t.Errorf("events of the refusals: %+v", refusals)
	}
	n.InRun.Set("", errors.New("the cgroup cannot be read"))
	if _, err := c.Status(t.Context()); status(err) != http.StatusForbidden {
		t.Errorf("a peer that cannot be judged: %v", err)
	}
	n.InRun.Set("", nil)
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("a peer in no run: %v", err)
	}
}

func TestVotes(t *testing.T) {
	n, c := serve(t)
	run := n.AddRun(t, "run_A", "billing-bot", someoneElse())
	ctx := t.Context()
	id := n.Hold(t, run, decision.FourEyes, "delete everything")
	a, err := c.Approval(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Approve(ctx, id, api.Vote{Preview: "sha256:other"}); status(err) != http.StatusConflict {
		t.Errorf("approve what was not shown: %v", err)
	}
	if _, err := c.Approve(ctx, id, api.Vote{}); status(err) != http.StatusConflict {
		t.Errorf("approve unseen: %v", err)
	}
	got, err := c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest, Reason: "ok"})
	if err != nil || got.State != approval.Granted {
		t.Fatalf("approve: %+v, %v", got, err)
	}
	if v := got.Votes[0]; v.UID != uint32(os.Getuid()) || v.PID != os.Getpid() || v.Presence != "" || v.PeerCheck == "" || v.Reason != "ok" {
		t.Errorf("vote: %+v", v)
	}
	if _, err := c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest}); status(err) != http.StatusConflict {
		t.Errorf("approve again: %v", err)
	}
	if got, err := c.Deny(ctx, id, api.Vote{Reason: "changed my mind"}); err != nil || got.State != approval.Denied {
		t.Errorf("deny what is not used yet: %+v, %v", got.State, err)
	}
	if _, err := c.Approve(ctx, "apr_nothing", api.Vote{}); status(err) != http.StatusNotFound {
		t.Errorf("approve nothing: %v", err)
	}
	list, err := c.Approvals(ctx, "run_A", "denied")
	if err != nil || len(list) != 1 {
		t.Errorf("list: %d, %v", len(list), err)
	}
}

// TestOwn shows that nobody approves their own action, and that to confirm one
// takes a terminal that the process really has.
func TestOwn(t *testing.T) {
	n, c := serve(t)
	run := n.AddRun(t, "run_A", "billing-bot", uint32(os.Getuid()))
	ctx := t.Context()
	id := n.Hold(t, run, decision.FourEyes, "x")
	a, err := c.Approval(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest}); status(err) != http.StatusForbidden {
		t.Errorf("four eyes with two: %v", err)
	}
	if _, err := c.Deny(ctx, id, api.Vote{}); err != nil {
		t.Errorf("deny one's own: %v", err)
	}
	run2 := n.AddRun(t, "run_B", "billing-bot", uint32(os.Getuid()))
	id = n.Hold(t, run2, decision.Confirm, "x")
	if a, err = c.Approval(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest}); status(err) != http.StatusForbidden {
		t.Errorf("confirm without presence: %v", err)
	}
	if _, err := c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest, Presence: "telepathy"}); status(err) != http.StatusBadRequest {
		t.Errorf("confirm with an unknown presence: %v", err)
	}
	tty, err := os.Open("/dev/tty")
	if err == nil {
		tty.Close()
		t.Log("the test has a terminal, so a false claim of one is not tried")
		return
	}
	if _, err := c.Approve(ctx, id, api.Vote{Preview: a.PreviewDigest, Presence: api.PresenceTerminal}); status(err) != http.StatusForbidden {
		t.Errorf("claim a terminal that is not there: %v", err)
	}
}

func TestStrictness(t *testing.T) {
	n, _ := serve(t)
	run := n.AddRun(t, "run_A", "billing-bot", someoneElse())
	id := n.Hold(t, run, decision.FourEyes, "x")
	deny := "/v1/approvals/" + id + "/deny"
	tests := []struct {
		name, method, path, kind, body string
		status                         int
		code                           string
	}{
		{"unknown key", "POST", deny, "application/json", `{"reasons":"x"}`, 400, api.CodeBadRequest},
		{"key twice", "POST", deny, "application/json", `{"reason":"x","reason":"y"}`, 400, api.CodeBadRequest},
		{"key in another case", "POST", deny, "application/json", `{"Reason":"x"}`, 400, api.CodeBadRequest},
		{"escaped key twice", "POST", deny, "application/json", `{"reason":"x","\u0072eason":"y"}`, 400, api.CodeBadRequest},
		{"wrong type", "POST", deny, "application/json", `{"reason":1}`, 400, api.CodeBadRequest},
		{"two values", "POST", deny, "application/json", `{}{}`, 400, api.CodeBadRequest},
		{"an array", "POST", deny, "application/json", `[]`, 400, api.CodeBadRequest},
		{"nothing", "POST", deny, "application/json", ``, 400, api.CodeBadRequest},
		{"not UTF-8", "POST", deny, "application/json", "{\"reason\":\"\xff\"}", 400, api.CodeBadRequest},
		{"another content type", "POST", deny, "text/plain", `{}`, 400, api.CodeBadRequest},
		{"too large", "POST", deny, "application/json", `{"reason":"` + strings.Repeat("x", 20000) + `"}`, 413, api.CodeBadRequest},
		{"unknown parameter", "GET", "/v1/audit?runs=x", "", "", 400, api.CodeBadRequest},
		{"parameter twice", "GET", "/v1/audit?run=x&run=y", "", "", 400, api.CodeBadRequest},
		{"parameter where there is none", "GET", "/v1/status?verbose=1", "", "", 400, api.CodeBadRequest},
		{"unknown kind", "GET", "/v1/audit?kind=x", "", "", 400, api.CodeBadRequest},
		{"unknown effect", "GET", "/v1/audit?effect=x", "", "", 400, api.CodeBadRequest},
		{"no time", "GET", "/v1/audit?since=yesterday", "", "", 400, api.CodeBadRequest},
		{"negative limit", "GET", "/v1/audit?limit=-1", "", "", 400, api.CodeBadRequest},
		{"newest without limit", "GET", "/v1/audit?newest=true", "", "", 400, api.CodeBadRequest},
		{"no such route", "GET", "/v2/status", "", "", 404, api.CodeNotFound},
		{"no such method", "DELETE", "/v1/runs", "", "", 404, api.CodeNotFound},
		{"no destination", "GET", "/v1/why?run=run_A", "", "", 400, api.CodeBadRequest},
		{"control: a good body", "POST", deny, "application/json; charset=utf-8", `{"reason":"x"}`, 200, ""},
		{"control: a good query", "GET", "/v1/audit?kind=approval&limit=1&since=2026-01-02T15:04:05Z", "", "", 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if code, problem := raw(t, n.Socket, tt.method, tt.path, tt.kind, tt.body); code != tt.status || problem != tt.code {
				t.Errorf("got %d %s, want %d %s", code, problem, tt.status, tt.code)
			}
		})
	}
}

func TestReload(t *testing.T) {
	n, c := serve(t)
	if r, err := c.Reload(t.Context()); err != nil || r.Agents != 2 {
		t.Fatalf("reload: %+v, %v", r, err)
	}
	if err := os.WriteFile(n.ConfigDir()+"/agents.d/plain.yaml", []byte("agent: plain\nmode: maybe\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.Reload(t.Context())
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusUnprocessableEntity || len(p.Problems) == 0 || p.Problems[0].Line == 0 {
		t.Errorf("reload of a bad configuration: %+v, %v", p, err)
	}
}

func TestEvents(t *testing.T) {
	n, c := serve(t)
	for i := range 10 {
		append1(t, n, "run_"+strconv.Itoa(i%2))
	}
	read := func(q api.EventQuery) (seqs []uint64) {
		t.Helper()
		for e, err := range c.Events(t.Context(), q) {
			if err != nil {
				t.Fatal(err)
			}
			seqs = append(seqs, e.Seq)
		}
		return seqs
	}
	if got := read(api.EventQuery{Filter: audit.Filter{Run: "run_1"}}); !cmp.Equal(got, []uint64{2, 4, 6, 8, 10}) {
		t.Errorf("by run: %v", got)
	}
	if got := read(api.EventQuery{Filter: audit.Filter{Limit: 2, Newest: true}}); !cmp.Equal(got, []uint64{9, 10}) {
		t.Errorf("newest: %v", got)
	}
	var followed []uint64
	for e, err := range c.Events(t.Context(), api.EventQuery{Filter: audit.Filter{After: 9}, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		followed = append(followed, e.Seq)
		if len(followed) == 3 {
			break
		}
		append1(t, n, "run_9")
	}
	if !cmp.Equal(followed, []uint64{10, 11, 12}) {
		t.Errorf("follow: %v", followed)
	}
}

func append1(t *testing.T, n *admintest.Node, run string) {
	t.Helper()
	e := &audit.Event{Kind: audit.KindRunStart, Run: run}
	if err := n.Log.Append(t.Context(), e, decision.Appended); err != nil {
		t.Fatal(err)
	}
}

// TestStreamsEnd shows that a client can tell a stream that is complete from
// one that was cut off.
func TestStreamsEnd(t *testing.T) {
	n := admintest.New(t, admintest.Files())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n.Serve(ctx, t)
	append1(t, n, "run_A")
	c := api.NewClient(n.Socket)
	defer c.Close()
	var last error
	for _, err := range c.Events(t.Context(), api.EventQuery{Follow: true}) {
		if err == nil {
			cancel() // the daemon ends
		}
		last = err
	}
	if !errors.Is(last, api.ErrUnreachable) {
		t.Errorf("a stream that was cut off ended with %v", last)
	}
}

// TestStreamsStay shows that the time to read a request does not end a stream
// that answers it.
func TestStreamsStay(t *testing.T) {
	n := admintest.New(t, admintest.Files())
	s, err := admin.New(n.Options)
	if err != nil {
		t.Fatal(err)
	}
	patience := 50 * time.Millisecond
	s.SetReadTimeout(patience)
	l, err := net.Listen("unix", n.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	c := api.NewClient(n.Socket)
	defer c.Close()
	append1(t, n, "run_A")
	seen := 0
	for _, err := range c.Events(t.Context(), api.EventQuery{Follow: true}) {
		if err != nil {
			t.Fatalf("the stream ended after %d events: %v", seen, err)
		}
		if seen++; seen == 2 {
			break
		}
		time.Sleep(4 * patience)
		append1(t, n, "run_A")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDaemonDown(t *testing.T) {
	c := api.NewClient(t.TempDir() + "/none.sock")
	if _, err := c.Status(t.Context()); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("no daemon: %v", err)
	}
	if !bytes.Contains([]byte((&api.Problem{Status: 500}).Error()), []byte("500")) {
		t.Error("a problem without detail has no text")
	}
}
