package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/testutil"
)

func TestMain(m *testing.M) { testutil.Main(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// filled returns metrics in which everything has happened.
func filled(t *testing.T) (*prometheus.Registry, *Metrics, *health.Health) {
	t.Helper()
	h := health.New(discard(), time.Now)
	reg := prometheus.NewRegistry()
	one := func() int { return 1 }
	by := func(name string, n uint64) func() map[string]uint64 {
		return func() map[string]uint64 { return map[string]uint64{name: n} }
	}
	m, err := New(reg, Build{"v1", "abc", "go1.26"}, Sources{
		Runs: one, ApprovalsPending: one, Leases: one, GatewayConnections: one, AuditSeq: func() uint64 { return 7 },
		DNSQuestions: by("answered", 3), KernelDenials: by("no-rule", 5), EventsLost: by("flow", 1), Health: h,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Decision(decision.KindHTTP, decision.Decision{Effect: decision.EffectAllow})
	m.Denied("no-rule", 2)
	m.Denied("bad\xffreason", 1)
	m.AuditAppended(audit.KindHTTP, decision.EffectAllow, 100, time.Millisecond)
	m.AuditSynced(3, time.Millisecond, errors.New("no"))
	m.ApprovalResolved("granted", time.Minute)
	m.TokenMinted()
	m.AdminRefused("peer-in-run")
	m.ConfigOK(true)
	return reg, m, h
}

func scrape(t *testing.T, reg *prometheus.Registry, h *health.Health, path, accept string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	Handler(reg, h, discard()).ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	reg, m, h := filled(t)
	h.Set(health.ConfigInvalid, "")
	code, text := scrape(t, reg, h, "/metrics", "")
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	for _, want := range []string{
		`varvel_decisions_total{effect="allow",kind="http"} 1`, `varvel_denials_total{reason="no-rule"} 7`, `varvel_denials_total{reason="bad?reason"} 1`,
		`varvel_runs 1`, `varvel_approvals_pending 1`, `varvel_audit_events_total{effect="allow",kind="http"} 1`, `varvel_audit_fsync_seconds_count 1`,
		`varvel_dns_questions_total{result="answered"} 3`, `varvel_gateway_connections 1`, `varvel_tokens_minted_total 1`, `varvel_config_ok 1`,
		`varvel_health{code="config-invalid",severity="failing"} 1`, `varvel_health{code="dns-upstream",severity="degraded"} 0`,
		`varvel_build_info{go="go1.26",revision="abc",version="v1"} 1`, `varvel_admin_refusals_total{code="peer-in-run"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	m.ConfigOK(false)
	if _, text := scrape(t, reg, h, "/metrics", ""); !strings.Contains(text, "varvel_config_ok 0\n") {
		t.Error("varvel_config_ok is not 0")
	}
	lint(t, text)
}

// lint lets Prometheus' own tool look at names, help and types.
func lint(t *testing.T, text string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed, so the metrics are not linted")
		return
	}
	cmd := exec.CommandContext(t.Context(), tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v: %s", err, out)
	}
}

// TestReasonsAreBounded shows that made-up reasons do not make series without end.
func TestReasonsAreBounded(t *testing.T) {
	reg, m, h := filled(t)
	for i := range 1000 {
		m.Decision(decision.KindHTTP, decision.Decision{Effect: decision.EffectDeny, Reasons: []decision.Reason{{Rule: fmt.Sprintf("custom.%d", i)}}})
	}
	_, text := scrape(t, reg, h, "/metrics", "")
	if n := strings.Count(text, "varvel_denials_total{"); n > maxReasons+2 {
		t.Errorf("%d series of denials", n)
	}
	if !strings.Contains(text, `varvel_denials_total{reason="other"}`) {
		t.Error("the reasons beyond the limit are not counted")
	}
}

func TestTwice(t *testing.T) {
	reg, _, _ := filled(t)
	if _, err := New(reg, Build{}, Sources{}); err == nil {
		t.Error("metrics were registered twice")
	}
}

type recorder struct{ err error }

func (r recorder) Record(context.Context, decision.Request, decision.Decision, decision.Promise) error {
	return r.err
}

func TestRecorder(t *testing.T) {
	reg, m, h := filled(t)
	allow := decision.Decision{Effect: decision.EffectAllow}
	q := decision.Request{Kind: decision.KindCredential}
	if err := (Recorder{recorder{}, m}).Record(t.Context(), q, allow, decision.Durable); err != nil {
		t.Error(err)
	}
	full := errors.New("disk full")
	if err := (Recorder{recorder{full}, m}).Record(t.Context(), q, allow, decision.Durable); !errors.Is(err, full) {
		t.Error(err)
	}
	_, text := scrape(t, reg, h, "/metrics", "")
	for _, want := range []string{`{effect="allow",kind="credential"} 1`, `{effect="deny",kind="credential"} 1`, `{reason="audit.unavailable"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestHealthz(t *testing.T) {
	reg, _, h := filled(t)
	if code, text := scrape(t, reg, h, "/healthz", ""); code != http.StatusOK || text != "ok\n" {
		t.Errorf("well: %d %q", code, text)
	}
	h.Set(health.DNSUpstream, "x")
	if code, text := scrape(t, reg, h, "/healthz", ""); code != http.StatusOK || !strings.HasPrefix(text, "degraded dns-upstream: ") {
		t.Errorf("degraded: %d %q", code, text)
	}
	h.Set(health.AuditBroken, "x")
	code, text := scrape(t, reg, h, "/healthz", "")
	if code != http.StatusServiceUnavailable || strings.Count(text, "\n") != 2 || !strings.HasPrefix(text, "failing audit-broken: ") {
		t.Errorf("failing: %d %q", code, text)
	}
	if code, text := scrape(t, reg, h, "/healthz", "application/json"); code != http.StatusServiceUnavailable || !strings.Contains(text, `"ok":false`) {
		t.Errorf("JSON: %d %q", code, text)
	}
}

func TestServe(t *testing.T) {
	reg, _, h := filled(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Handler(reg, h, discard()), discard()) }()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "ok\n" {
		t.Errorf("%q, %v", b, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
