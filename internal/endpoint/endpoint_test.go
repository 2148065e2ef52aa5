package endpoint_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/broker/issuer"
	"github.com/varvel/varvel/internal/config"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/endpoint"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// world is what is around an endpoint: a real broker and issuer, and a policy
// that the test sets.
type world struct {
	t       *testing.T
	e       *endpoint.Endpoint
	runs    *workload.Registry
	run     *workload.Run
	history *endpoint.History
	broker  *broker.Broker

	mu     sync.Mutex
	effect decision.Effect
	events []endpoint.Event
	log    strings.Builder
	save   error
}

func (w *world) Decide(context.Context, decision.Request) (decision.Decision, error) {
	return decision.Decision{
		ID: "dec_1", Effect: w.effect, ApprovalID: map[bool]string{true: "apr_1"}[w.effect == decision.EffectHold],
		Reasons: []decision.Reason{{Rule: "test.rule", Text: "Because."}},
	}, nil
}

func (w *world) RecordMint(context.Context, broker.Mint) error { return w.save }

func (w *world) Refused(_ context.Context, e endpoint.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	return nil
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, runs: workload.NewRegistry(), history: &endpoint.History{}, effect: decision.EffectAllow}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	minter, err := issuer.New(issuer.Options{URL: "https://issuer.example.org", Dir: filepath.Join(t.TempDir(), "keys"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	w.broker = broker.New(broker.Options{Decider: w, Minter: minter, Journal: w, Log: log})
	t.Cleanup(w.broker.Close)
	w.run = &workload.Run{
		Run:      decision.Run{ID: "run_1", Agent: "bot", Mode: decision.ModeEnforce},
		Actor:    decision.Actor{Account: "spiffe://example.org/agent/bot"},
		CgroupID: 7, Agent: &config.Agent{Name: "bot"},
		Tools: []*tool.Tool{
			{Name: "attached", Client: tool.ClientHTTP, Credential: &tool.Credential{
				Issuer: tool.Issuer{Audience: "https://x.example.org"}, Attach: &tool.Attach{Header: "Authorization", Value: "Bearer {{ token }}"},
			}},
			{Name: "ledger", Client: tool.ClientHTTP, Hosts: []tool.Host{{Name: "ledger.example.org", Port: 443}}, Credential: &tool.Credential{Issuer: tool.Issuer{Audience: "https://ledger.example.org"}}},
			{Name: "docs", Client: tool.ClientPass},
		},
	}
	if err := w.runs.Add(w.run); err != nil {
		t.Fatal(err)
	}
	w.e = endpoint.New(endpoint.Options{Tokens: w.broker, Runs: w.runs, Refusals: w.history, Events: w, Log: log, Hosts: []string{"localhost:8080"}})
	return w
}

// raw sends bytes over a real connection and returns the response.
func (w *world) raw(request string) (*http.Response, string) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			w.e.Serve(w.t.Context(), c, w.run)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprint(c, request)
	method, _, _ := strings.Cut(request, " ") // HEAD has no body
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = c.Close()
	<-done
	return resp, string(body)
}

func (w *world) get(path string, headers ...string) (*http.Response, string) {
	return w.raw("GET " + path + " HTTP/1.1\r\nHost: 169.254.170.2\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n")
}

const asked = "Varvel-Request: true"

func TestToken(t *testing.T) {
	w := newWorld(t)
	resp, body := w.get("/v1/token?tool=ledger", asked)
	var reply map[string]any
	if err := json.Unmarshal([]byte(body), &reply); err != nil || resp.StatusCode != 200 {
		t.Fatalf("status %d, %s", resp.StatusCode, body)
	}
	token, _ := reply["access_token"].(string)
	expires, _ := reply["expires_in"].(float64)
	if strings.Count(token, ".") != 2 || reply["token_type"] != "Bearer" || reply["audience"] != "https://ledger.example.org" || expires < 200 || expires > 300 || len(reply) != 4 {
		t.Errorf("reply is %v", reply)
	}
	if resp.Header.Get("Cache-Control") != "no-store" || len(resp.Cookies()) != 0 {
		t.Errorf("header is %v", resp.Header)
	}
	if all := fmt.Sprintf("%s %+v", w.log.String(), w.events); strings.Contains(all, token) {
		t.Error("the token is in a log or an event")
	}
	if _, again := w.get("/v1/token?tool=ledger", asked); !strings.Contains(again, token) {
		t.Error("not from the cache")
	}
}

func TestTokenRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, path string
		prepare    func(*world)
		status     int
		reason     string
		retry      bool
	}{
		{"unknown tool", "?tool=stripe", nil, 403, "unknown-tool", false},
		{"put on by the gateway", "?tool=attached", nil, 403, "attached", false},
		{"no credential", "?tool=docs", nil, 403, "no-credential", false},
		{"denied", "?tool=ledger", func(w *world) { w.effect = decision.EffectDeny }, 403, "test.rule", false},
		{"held", "?tool=ledger", func(w *world) { w.effect = decision.EffectHold }, 403, "test.rule", true},
		{"revoked", "?tool=ledger", func(w *world) { w.broker.Revoke("run_1") }, 403, "revoked", false},
		{"not recorded", "?tool=ledger", func(w *world) { w.save = errors.New("disk full") }, 503, "unavailable", true},
		{"run ended", "?tool=ledger", func(w *world) { w.runs.Remove("run_1") }, 403, "run-ended", false},
		{"no tool", "", nil, 400, "query", false},
		{"empty tool", "?tool=", nil, 400, "query", false},
		{"two tools", "?tool=ledger&tool=docs", nil, 400, "query", false},
		{"more", "?tool=ledger&audience=x", nil, 400, "query", false},
		{"semicolon", "?tool=ledger;tool=docs", nil, 400, "query", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.prepare != nil {
				tc.prepare(w)
			}
			resp, body := w.get("/v1/token"+tc.path, asked)
			var d struct {
				Reason, Approval string
				Retry            bool
				Status           int
			}
			if err := json.Unmarshal([]byte(body), &d); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if resp.StatusCode != tc.status || d.Status != tc.status || d.Reason != tc.reason || d.Retry != tc.retry || strings.Contains(body, "eyJ") {
				t.Errorf("status %d, %s", resp.StatusCode, body)
			}
			if resp.Header.Get("Varvel-Approval") != d.Approval || (d.Approval != "") != (tc.name == "held") {
				t.Errorf("approval %q, header %q", d.Approval, resp.Header.Get("Varvel-Approval"))
			}
		})
	}
}

// TestForeignRequests are those that something else made a program send.
func TestForeignRequests(t *testing.T) {
	get, host := "GET /v1/token?tool=ledger HTTP/1.1\r\n", "Host: 169.254.170.2\r\n"
	for name, request := range map[string]string{
		"no header":        get + host,
		"wrong header":     get + host + "Varvel-Request: yes\r\n",
		"header twice":     get + host + asked + "\r\n" + asked + "\r\n",
		"X-Forwarded-For":  get + host + asked + "\r\nX-Forwarded-For: 1.2.3.4\r\n",
		"X-Forwarded-Host": get + host + asked + "\r\nX-Forwarded-Host: x\r\n",
		"Forwarded":        get + host + asked + "\r\nForwarded: for=1.2.3.4\r\n",
		"Via":              get + host + asked + "\r\nVia: 1.1 proxy\r\n",
		"Origin":           get + host + asked + "\r\nOrigin: https://evil.example\r\n",
		"Referer":          get + host + asked + "\r\nReferer: https://evil.example/\r\n",
		"Sec-Fetch-Mode":   get + host + asked + "\r\nSec-Fetch-Mode: no-cors\r\n",
		"rebound name":     get + "Host: evil.example\r\n" + asked + "\r\n",
		"other address":    get + "Host: 169.254.169.254\r\n" + asked + "\r\n",
		"other port":       get + "Host: 169.254.170.2:81\r\n" + asked + "\r\n",
		"proxy form":       "GET http://169.254.170.2/v1/token?tool=ledger HTTP/1.1\r\n" + host + asked + "\r\n",
		"POST":             "POST /v1/token?tool=ledger HTTP/1.1\r\n" + host + asked + "\r\n",
		"HEAD":             "HEAD /v1/token?tool=ledger HTTP/1.1\r\n" + host + asked + "\r\n",
		"body":             get + host + asked + "\r\nContent-Length: 1\r\n",
		"why, forwarded":   "GET /v1/why HTTP/1.1\r\n" + host + "X-Forwarded-For: 1.2.3.4\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			resp, body := w.raw(request + "\r\n")
			if resp.StatusCode < 400 || resp.StatusCode > 405 || strings.Contains(body, "eyJ") || len(w.events) != 1 {
				t.Errorf("status %d, %s, %d events", resp.StatusCode, body, len(w.events))
			}
		})
	}
	w := newWorld(t)
	for _, good := range []string{"169.254.170.2:80", "[fd00:ec2::23]", "localhost:8080"} {
		if resp, body := w.raw(get + "Host: " + good + "\r\n" + asked + "\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("control %s: %s", good, body)
		}
	}
}

func TestWhoami(t *testing.T) {
	w := newWorld(t)
	resp, body := w.get("/v1/whoami")
	for _, want := range []string{`"run":"run_1"`, `"agent":"bot"`, `"actor":"spiffe://example.org/agent/bot"`, `"name":"ledger"`, "ledger.example.org:443"} {
		if !strings.Contains(body, want) {
			t.Errorf("status %d, %s lacks %s", resp.StatusCode, body, want)
		}
	}
	if resp, _ := w.get("/v1/other"); resp.StatusCode != 404 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestWhy(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w.history.Add(7, endpoint.Refusal{Time: at, Target: "evil.example:443", Rule: "name.unlisted"})
	w.history.Add(7, endpoint.Refusal{Time: at, Target: "api.example.com:443", Rule: "http.hold", Text: "A person has to approve it.", Approval: "apr_9", Detail: "DELETE /x\x1b[2J"})
	w.history.Add(7, endpoint.Refusal{Time: at, Target: "evil.example:443", Rule: "name.unlisted"})
	w.history.Add(8, endpoint.Refusal{Time: at, Target: "secret.example:443", Rule: "no-rule"})
	_, all := w.get("/v1/why")
	for _, want := range []string{
		"evil.example:443 was refused at 2026-01-02T03:04:05Z (2 times).", "does not help", "An operator can add",
		"api.example.com:443", "apr_9", "can help", "Send the same request again", `\x1b[2J`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("lacks %q:\n%s", want, all)
		}
	}
	if strings.Contains(all, "secret.example") || strings.Contains(all, "\x1b") {
		t.Errorf("another run's refusal, or a control character:\n%s", all)
	}
	for dest, want := range map[string]string{
		"evil.example": "2 times", "https://EVIL.example/path": "2 times", "evil.example:443": "2 times",
		"evil.example:80": "No refusal", "other.example": "No refusal", "a%1bb": `No refusal of a\x1bb`,
	} {
		if _, body := w.get("/v1/why?dest=" + dest); !strings.Contains(body, want) {
			t.Errorf("%s: %s", dest, body)
		}
	}
	resp, body := w.get("/v1/why?dest=evil.example", "Accept: application/json")
	var reply struct {
		Refusals []struct {
			Rule, Means, Help string
			Retry             bool
			Count             int
		}
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil || len(reply.Refusals) != 1 || reply.Refusals[0].Count != 2 || reply.Refusals[0].Help == "" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v: %s", err, body)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h endpoint.History
	for i := range 1000 {
		h.Add(1, endpoint.Refusal{Target: fmt.Sprint(i), Rule: "no-rule"})
	}
	if got := h.Recent(1); len(got) != 64 || got[0].Target != "999" {
		t.Errorf("%d are remembered, the latest is %q", len(got), got[0].Target)
	}
	h.Forget(1)
	if len(h.Recent(1)) != 0 {
		t.Error("not forgotten")
	}
}

// FuzzWhy sends whatever as a destination: the answer stays printable ASCII.
func FuzzWhy(f *testing.F) {
	for _, s := range []string{"", "a:1", "https://x/y", "[::1]:2", "%zz", "a\x1b", "://", ":"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, target, dest string) {
		var h endpoint.History
		h.Add(7, endpoint.Refusal{Target: target, Detail: dest, Rule: dest, Text: target})
		for _, asked := range []string{"", dest} {
			body := endpoint.WhyText(&h, asked)
			if i := strings.IndexFunc(body, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
				t.Errorf("%q holds an unescaped character", body)
			}
		}
	})
}
