package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/gateway/problem"
	"github.com/varvel/varvel/internal/tool"
)

func decodeProblem(t *testing.T, resp *http.Response, body string) problem.Details {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != problem.ContentType {
		t.Fatalf("status %d, Content-Type %q, body %q", resp.StatusCode, got, body)
	}
	var d problem.Details
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReadIsInjectedAndSent(t *testing.T) {
	var got *http.Request
	h, dst, _ := withHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.Header().Set("Trailer", "X-Late")
		fmt.Fprint(w, "hello")
		w.Header().Set("X-Late", r.Header.Get("Authorization"))
	})
	resp, body := h.do(dst, "GET", "/items/a%7eb?q=%41&x", "", http.Header{
		"Authorization": {"Bearer mine"}, "X-Forwarded-For": {"1.2.3.4"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}, "X-Kept": {"yes"},
	})
	if resp.StatusCode != 200 || body != "hello" {
		t.Fatalf("status %d, body %q", resp.StatusCode, body)
	}
	want := map[string]string{"Authorization": "Bearer " + canary, "X-Kept": "yes", "X-Hop": "", "X-Forwarded-For": ""}
	for name, value := range want {
		if got.Header.Get(name) != value {
			t.Errorf("%s is %q at the upstream, want %q", name, got.Header.Get(name), value)
		}
	}
	if got.RequestURI != "/items/a~b?q=%41&x" || got.Host != fmt.Sprintf("%s:%d", host, dst.Port()) {
		t.Errorf("upstream got %q for %q", got.RequestURI, got.Host)
	}
	if resp.Header.Get("X-Echo") != "Bearer [redacted]" || resp.Trailer.Get("X-Late") != "Bearer [redacted]" {
		t.Errorf("reflected token came back: %v %v", resp.Header, resp.Trailer)
	}
	e := h.events.wait(t, outcome)
	if !e.Injected || !e.Stripped || !e.Scrubbed || e.Status != 200 || e.Received != 5 || e.DecisionID == "" || e.Tool != "api" || e.Action != "items.read" {
		t.Errorf("outcome is %+v", e)
	}
}

func TestUnmatchedIsDenied(t *testing.T) {
	var hits atomic.Int64
	h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	for _, request := range []string{"GET /other", "PATCH /items/1", "GET /", "GET /items/1;v=2"} {
		method, path, _ := strings.Cut(request, " ")
		resp, body := h.do(dst, method, path, "", nil)
		d := decodeProblem(t, resp, body)
		if resp.StatusCode != 403 || d.Retry || d.Decision == "" || d.Tool != "api" || len(d.Actions) != 3 || d.Help == "" || d.Status != 403 {
			t.Errorf("%s: %d %+v", request, resp.StatusCode, d)
		}
	}
	if hits.Load() != 0 || h.resolver.asked.Load() != 0 || h.tokens.n.Load() != 0 {
		t.Error("a denied request was resolved, given a token, or sent")
	}
}

func TestObserveLetsThrough(t *testing.T) {
	h, dst, _ := withHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, data)
	})
	observed := *h.run
	observed.Mode = decision.ModeObserve
	h.runs.Replace(&observed)
	resp, body := h.do(dst, "PATCH", "/other", "data", nil)
	if resp.StatusCode != 200 || body != "PATCH data" {
		t.Fatalf("status %d, body %q", resp.StatusCode, body)
	}
}

func TestHoldThenApprovedOnce(t *testing.T) {
	var hits atomic.Int64
	h, dst, tl := withHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		data, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "deleted %s", data)
	})
	resp, body := h.do(dst, "DELETE", "/items/7", "why", nil)
	d := decodeProblem(t, resp, body)
	if resp.StatusCode != 403 || !d.Retry || d.Approval == "" || d.Expires == "" || resp.Header.Get("Varvel-Approval") != d.Approval || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("status %d, %v, %+v", resp.StatusCode, resp.Header, d)
	}
	r := h.judge.lastRequest()
	if r.Digest == "" || r.HTTP.BodySize != 3 || r.ToolRevision != tl.Revision || !strings.Contains(r.Preview, "DELETE https://api.example.com:") || !strings.Contains(r.Preview, "why") {
		t.Fatalf("request to be approved: %+v", r)
	}
	h.judge.grant(r.Digest)

	// Other requests are not what was approved.
	for _, other := range []struct{ method, path, body, header string }{
		{"DELETE", "/items/8", "why", ""}, {"DELETE", "/items/7", "what", ""}, {"DELETE", "/items/7?x", "why", ""},
		{"DELETE", "/items/7", "why", "X-Covered"}, {"DELETE", "/items/7", "why", "Content-Type"}, {"DELETE", "/items/7", "why", "Content-Encoding"},
	} {
		header := http.Header{}
		if other.header != "" {
			header.Set(other.header, "x")
		}
		if resp, _ := h.do(dst, other.method, other.path, other.body, header); resp.StatusCode != 403 {
			t.Errorf("%+v: status %d", other, resp.StatusCode)
		}
	}
	if hits.Load() != 0 {
		t.Fatal("sent before approval")
	}

	// An equal one, in another spelling, runs. A second one does not.
	resp, body = h.do(dst, "DELETE", "/items/%37", "why", http.Header{"X-Not-Covered": {"1"}})
	if resp.StatusCode != 200 || body != "deleted why" {
		t.Fatalf("status %d, body %q", resp.StatusCode, body)
	}
	resp, _ = h.do(dst, "DELETE", "/items/7", "why", nil)
	if resp.StatusCode != 403 || hits.Load() != 1 {
		t.Errorf("repeated: status %d, %d executions", resp.StatusCode, hits.Load())
	}
	if diff := cmp.Diff([]gateway.Outcome{{Sent: true, Status: 200}}, h.events.outcomes(d.Approval)); diff != "" {
		t.Error(diff)
	}
}

func TestBodyLimit(t *testing.T) {
	var hits atomic.Int64
	h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	big := strings.Repeat("x", 1<<10+1)
	resp, body := h.do(dst, "PUT", "/items/1", big, nil)
	if d := decodeProblem(t, resp, body); resp.StatusCode != 413 || d.Reason != "body-size" || hits.Load() != 0 {
		t.Fatalf("status %d, %+v", resp.StatusCode, d)
	}
	resp, _ = h.do(dst, "PUT", "/items/1", big[1:], nil)
	if resp.StatusCode != 200 || hits.Load() != 1 {
		t.Errorf("control: status %d", resp.StatusCode)
	}
	resp, _ = h.do(dst, "POST", "/items/1", strings.Repeat(big, 4096), nil) // a read is streamed
	if resp.StatusCode != 200 || hits.Load() != 2 {
		t.Errorf("streamed: status %d", resp.StatusCode)
	}
}

func TestRecorderDownSendsNothing(t *testing.T) {
	var hits atomic.Int64
	h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	h.judge.fail = errors.New("disk full")
	resp, body := h.do(dst, "GET", "/items/1", "", nil)
	if d := decodeProblem(t, resp, body); resp.StatusCode != 503 || !d.Retry || hits.Load() != 0 {
		t.Errorf("status %d, %+v, %d sent", resp.StatusCode, d, hits.Load())
	}
}

func TestNoTokenNothingSent(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
	}{
		{&broker.Refused{}, 403},
		{errors.New("vault sealed"), 503},
	} {
		var hits atomic.Int64
		h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
		h.tokens.err = tc.err
		resp, _ := h.do(dst, "GET", "/items/1", "", nil)
		if resp.StatusCode != tc.status || hits.Load() != 0 {
			t.Errorf("%v: status %d, %d sent", tc.err, resp.StatusCode, hits.Load())
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	var other atomic.Int64
	elsewhere, _ := upstream(t, func(http.ResponseWriter, *http.Request) { other.Add(1) })
	h, dst, _ := withHTTP(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, 302) })
	resp, _ := h.do(dst, "GET", "/items/1", "", nil)
	if resp.StatusCode != 302 || resp.Header.Get("Location") != elsewhere.URL || other.Load() != 0 {
		t.Errorf("status %d, Location %q, %d followed", resp.StatusCode, resp.Header.Get("Location"), other.Load())
	}
}

func TestTokenOnlyToVerifiedUpstream(t *testing.T) {
	var hits atomic.Int64
	h, dst, tl := withHTTP(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	_, otherCA := certificate(t, host)
	wrong := *tl
	wrong.CAFile, wrong.Revision = otherCA, "sha256:other"
	h.names.set(dst, gateway.Name{Host: host, Tool: &wrong})
	if resp, _ := h.do(dst, "GET", "/items/1", "", nil); resp.StatusCode != 502 || hits.Load() != 0 {
		t.Errorf("unknown authority: status %d, %d requests", resp.StatusCode, hits.Load())
	}
	// The right authority, but the certificate is for another name.
	renamed := *tl
	renamed.Revision = "sha256:renamed"
	h.names.set(dst, gateway.Name{Host: "www.example.com", Tool: &renamed})
	r, _ := http.NewRequest("GET", fmt.Sprintf("http://www.example.com:%d/items/1", dst.Port()), nil)
	resp, err := h.client(dst).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 502 || hits.Load() != 0 {
		t.Errorf("wrong name: status %d, %d requests", resp.StatusCode, hits.Load())
	}
	h.names.set(dst, gateway.Name{Host: host, Tool: tl})
	if resp, _ := h.do(dst, "GET", "/items/1", "", nil); resp.StatusCode != 200 || hits.Load() != 1 {
		t.Errorf("control: status %d", resp.StatusCode)
	}
}

func TestPlainOnlyToGrantedAddresses(t *testing.T) {
	h := start(t)
	tl := httpTool(t, 80, "")
	tl.Upstream = tool.UpstreamPlain
	dst := netip.MustParseAddrPort("198.18.0.7:80")
	h.names.set(dst, gateway.Name{Host: host, Tool: tl})
	h.resolver.addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1")} // TEST-NET-1: nothing answers there
	resp, _ := h.do(dst, "GET", "/items/1", "", nil)
	if resp.StatusCode != 502 {
		t.Errorf("status %d", resp.StatusCode)
	}
	e := h.events.wait(t, outcome)
	if !strings.Contains(e.Error, "neither loopback nor in within") {
		t.Errorf("error is %q", e.Error)
	}
}

func TestServerSentEventsStream(t *testing.T) {
	next := make(chan struct{})
	h, dst, _ := withHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	resp, err := h.client(dst).Get(fmt.Sprintf("http://%s:%d/items/stream", host, dst.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 { // each arrives before the server goes on
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
			t.Fatalf("event %d: %q, %v", i, lines.Text(), lines.Err())
		}
		next <- struct{}{}
	}
}

func TestReloadIsSeenOnKeptConnection(t *testing.T) {
	h, dst, tl := withHTTP(t, func(http.ResponseWriter, *http.Request) {})
	client := h.client(dst)
	get := func() int {
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/items/1", host, dst.Port()))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode
	}
	if get() != 200 {
		t.Fatal("control failed")
	}
	less := *tl
	less.Actions, less.Revision = tl.Actions[1:], "sha256:less"
	h.names.set(dst, gateway.Name{Host: host, Tool: &less})
	if got := get(); got != 403 {
		t.Errorf("after the action was removed: status %d", got)
	}
	h.names.set(dst, gateway.Name{Host: host, Tool: tl})
	h.runs.Remove(h.run.ID)
	if got := get(); got != 403 {
		t.Errorf("after the run ended: status %d", got)
	}
	if n := h.gw.Stats().Accepted; n != 1 {
		t.Errorf("%d connections, want one that was kept", n)
	}
}

func TestRevokeCutsConnections(t *testing.T) {
	reached := make(chan struct{})
	h, dst, _ := withHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	})
	failed := make(chan error, 1)
	client := h.client(dst)
	go func() {
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/items/1", host, dst.Port()))
		if err == nil && resp.StatusCode == http.StatusBadGateway {
			err = errors.New("the gateway gave the request up before it closed the connection")
		}
		failed <- err
	}()
	<-reached
	h.gw.Revoke(h.run.ID)
	select {
	case err := <-failed:
		if err == nil {
			t.Error("the request went on")
		}
	case <-time.After(10 * time.Second):
		t.Error("the connection was not cut")
	}
	h.dial(dst)
	h.events.wait(t, refused("revoked"))
}
