package gateway_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/tool"
)

// approve asks for DELETE /items/7, approves it, and returns the approval.
func approve(t *testing.T, h *harness, dst netip.AddrPort) string {
	t.Helper()
	resp, body := h.do(dst, "DELETE", "/items/7", "", nil)
	d := decodeProblem(t, resp, body)
	if d.Approval == "" {
		t.Fatalf("not held: %+v", d)
	}
	h.judge.grant(h.judge.lastRequest().Digest)
	return d.Approval
}

// plainTool makes the tool's upstream a plain one, so that a test can be it.
func plainTool(t *testing.T, h *harness, dst netip.AddrPort) {
	t.Helper()
	tl := httpTool(t, dst.Port(), "")
	tl.Upstream = tool.UpstreamPlain
	h.names.set(dst, gateway.Name{Host: host, Tool: tl})
}

// TestFailureAfterClaim lets the upstream die in each way. The action is sent
// at most once, and a repetition is refused.
func TestFailureAfterClaim(t *testing.T) {
	for name, die := range map[string]func(*net.TCPConn, *http.Request){
		"closes":          func(*net.TCPConn, *http.Request) {},
		"resets":          func(c *net.TCPConn, _ *http.Request) { _ = c.SetLinger(0) },
		"answers rubbish": func(c *net.TCPConn, _ *http.Request) { fmt.Fprint(c, "rubbish\r\n\r\n") },
		"switches":        func(c *net.TCPConn, _ *http.Request) { fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64
			dst := tcpServer(t, func(c *net.TCPConn) {
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					requests.Add(1)
					die(c, r)
				}
			})
			h := start(t)
			plainTool(t, h, dst)
			approval := approve(t, h, dst)
			resp, body := h.do(dst, "DELETE", "/items/7", "", http.Header{"Idempotency-Key": {"1"}})
			if d := decodeProblem(t, resp, body); resp.StatusCode != 502 || d.Retry || d.Approval != approval {
				t.Errorf("status %d, %+v", resp.StatusCode, d)
			}
			if resp, _ := h.do(dst, "DELETE", "/items/7", "", nil); resp.StatusCode != 403 {
				t.Errorf("repetition: status %d", resp.StatusCode)
			}
			o := h.events.outcomes(approval)
			if requests.Load() != 1 || len(o) != 1 || !o[0].Sent || o[0].Status != 0 || o[0].Error == "" {
				t.Errorf("%d requests, settled as %+v", requests.Load(), o)
			}
		})
	}
}

func TestUnreachableAfterClaim(t *testing.T) {
	h := start(t)
	dst := netip.MustParseAddrPort("198.18.0.9:1")
	plainTool(t, h, dst)
	h.resolver.check = func(netip.Addr) error { return fmt.Errorf("link-local") }
	approval := approve(t, h, dst)
	resp, _ := h.do(dst, "DELETE", "/items/7", "", nil)
	if resp.StatusCode != 502 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if o := h.events.outcomes(approval); len(o) != 1 || o[0].Sent || o[0].Error == "" {
		t.Errorf("settled as %+v", o)
	}
}

func TestNoTokenAfterClaim(t *testing.T) {
	h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	approval := approve(t, h, dst)
	h.tokens.err = fmt.Errorf("no key")
	if resp, _ := h.do(dst, "DELETE", "/items/7", "", nil); resp.StatusCode != 503 {
		t.Errorf("status %d", resp.StatusCode)
	}
	if o := h.events.outcomes(approval); len(o) != 1 || o[0].Sent {
		t.Errorf("settled as %+v", o)
	}
}

func TestUnrecordedClaimIsNotSent(t *testing.T) {
	h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	approval := approve(t, h, dst)
	h.judge.fail = fmt.Errorf("disk full")
	resp, body := h.do(dst, "DELETE", "/items/7", "", nil)
	if d := decodeProblem(t, resp, body); resp.StatusCode != 503 || d.Retry {
		t.Errorf("status %d, %+v", resp.StatusCode, d)
	}
	if len(h.judge.abandoned) != 1 || h.judge.abandoned[0] != approval || len(h.events.outcomes(approval)) != 0 {
		t.Errorf("abandoned %q, settled %+v", h.judge.abandoned, h.events.outcomes(approval))
	}
}

// TestApprovedGoesOnWithoutClient cuts the client while the upstream works.
func TestApprovedGoesOnWithoutClient(t *testing.T) {
	arrived, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	h, dst, _ := withHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		select {
		case <-goOn:
			done <- nil
		case <-r.Context().Done():
			done <- r.Context().Err()
		}
	})
	approval := approve(t, h, dst)
	c := h.dial(dst)
	fmt.Fprintf(c, "DELETE /items/7 HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	<-arrived
	_ = c.SetLinger(0)
	_ = c.Close()
	time.Sleep(50 * time.Millisecond) // lets the gateway notice; the test holds without it, too
	close(goOn)
	if err := <-done; err != nil {
		t.Fatalf("the upstream request was cut: %v", err)
	}
	h.events.wait(t, func(e gateway.Event) bool { return outcome(e) && e.ApprovalID == approval && e.Status == 200 })
	if o := h.events.outcomes(approval); len(o) != 1 || o[0].Status != 200 || !o[0].Sent {
		t.Errorf("settled as %+v", o)
	}
}

// TestWritesUseFreshConnections shows that nothing which changes something is
// sent on a connection that was used before, where net/http might repeat it.
func TestWritesUseFreshConnections(t *testing.T) {
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	dst := synthetic(s)
	h := start(t)
	plainTool(t, h, dst)
	client := h.client(dst)
	send := func(method string) {
		r, _ := http.NewRequest(method, fmt.Sprintf("http://%s:%d/items/1", host, dst.Port()), strings.NewReader("x"))
		resp, err := client.Do(r)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	for _, want := range []struct {
		method string
		conns  int64
	}{{"POST", 1}, {"POST", 1}, {"PUT", 2}, {"PUT", 3}, {"POST", 3}} {
		send(want.method)
		if conns.Load() != want.conns {
			t.Errorf("after %s: %d connections, want %d", want.method, conns.Load(), want.conns)
		}
	}
}

// TestClientGoesAwayWhileHeld goes away while the approver waits.
func TestClientGoesAwayWhileHeld(t *testing.T) {
	h, dst, _ := withHTTP(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	asking := make(chan struct{})
	slow := &slowDecider{judge: h.judge, asking: asking}
	g := start(t, func(o *gateway.Options) { o.Decider = slow })
	tl, _ := h.names.Lookup(cgroup, dst)
	g.names.set(dst, tl)
	c := g.dial(dst)
	fmt.Fprintf(c, "DELETE /items/7 HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	<-asking
	_ = c.Close()
	e := g.events.wait(t, outcome) // Decide returned because its context ended
	if e.Status != 403 || e.ApprovalID != "apr_slow" {
		t.Errorf("outcome is %+v", e)
	}
}
