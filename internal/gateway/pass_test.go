package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// tcpServer runs serve for each connection.
func tcpServer(t testing.TB, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			}()
		}
	}()
	return netip.AddrPortFrom(netip.MustParseAddr("198.18.0.9"), l.Addr().(*net.TCPAddr).AddrPort().Port())
}

func pool(t testing.TB, file string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(data)
	return p
}

func TestPassChecksServerName(t *testing.T) {
	s, ca := upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "passed") })
	dst := synthetic(s)
	for _, tc := range []struct {
		sni  string
		rule string // of the refusal; "" if it passes
	}{
		{host, ""},
		{"API.Example.COM", ""},
		{"www.example.com", "sni-mismatch"},
		{"api.example.com.evil.example", "sni-mismatch"},
		{"", "sni-missing"},
	} {
		h := start(t)
		h.names.set(dst, gateway.Name{Host: host, Tool: &tool.Tool{Name: "p", Client: tool.ClientPass}})
		c := tls.Client(h.dial(dst), &tls.Config{ServerName: tc.sni, InsecureSkipVerify: true})
		err := c.Handshake()
		if tc.rule == "" {
			if err != nil {
				t.Errorf("%q: %v", tc.sni, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "remote error: tls: ") {
			t.Errorf("%q: want a TLS alert, got %v", tc.sni, err)
		}
		e := h.events.wait(t, refused(tc.rule))
		if e.Target.Name != host || h.judge.decisions() != 0 || h.resolver.asked.Load() != 0 {
			t.Errorf("%q: %+v, %d decisions", tc.sni, e, h.judge.decisions())
		}
	}
	// End to end, with verification by the client.
	h := start(t)
	h.names.set(dst, gateway.Name{Host: host})
	c := tls.Client(h.dial(dst), &tls.Config{ServerName: host, RootCAs: pool(t, ca)})
	fmt.Fprintf(c, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", host)
	if reply, _ := io.ReadAll(c); !bytes.HasSuffix(reply, []byte("passed")) {
		t.Errorf("reply is %q", reply)
	}
	_ = c.Close()
	// The upstream has closed first, so the client's farewell may meet a reset.
	e := h.events.wait(t, outcome)
	if e.Error != "" && !strings.Contains(e.Error, "reset by peer") {
		t.Errorf("outcome is %+v", e)
	}
	if e.Sent == 0 || e.Received == 0 || e.Target.Address.String() != "127.0.0.1" || e.DecisionID == "" {
		t.Errorf("outcome is %+v", e)
	}
}

func TestPassRefusesOtherBytes(t *testing.T) {
	reached := make(chan struct{}, 1)
	dst := tcpServer(t, func(*net.TCPConn) { reached <- struct{}{} })
	for first, rule := range map[string]string{
		"GET / HTTP/1.1\r\n\r\n":           "not-tls",
		"SSH-2.0-client\r\n":               "not-tls",
		"\x16\x03\x01\x00\x00":             "tls-malformed",
		"\x16\x03\x01\x00\x05\x01\x00\x00": "hello-timeout",
	} {
		h := start(t, func(o *gateway.Options) { o.HelloTimeout = 100 * time.Millisecond })
		h.names.set(dst, gateway.Name{Host: host})
		if _, err := h.dial(dst).Write([]byte(first)); err != nil {
			t.Fatal(err)
		}
		h.events.wait(t, refused(rule))
	}
	select {
	case <-reached:
		t.Error("the upstream was dialled")
	default:
	}
}

func TestOpaqueServerSpeaksFirst(t *testing.T) {
	dst := tcpServer(t, func(c *net.TCPConn) {
		fmt.Fprint(c, "220 ready\r\n")
		line := make([]byte, 4)
		_, _ = io.ReadFull(c, line)
		fmt.Fprintf(c, "you said %s", line)
	})
	h := start(t)
	h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	c := h.dial(dst)
	greeting := make([]byte, 11)
	if _, err := io.ReadFull(c, greeting); err != nil || string(greeting) != "220 ready\r\n" {
		t.Fatalf("%q, %v", greeting, err)
	}
	fmt.Fprint(c, "QUIT")
	if rest, _ := io.ReadAll(c); string(rest) != "you said QUIT" {
		t.Errorf("got %q", rest)
	}
}

func TestPassHundredMegabytesWithHalfClose(t *testing.T) {
	const size = 100 << 20
	dst := tcpServer(t, func(c *net.TCPConn) { // answers after the client's half has ended
		sum := sha256.New()
		n, _ := io.Copy(sum, c)
		fmt.Fprintf(c, "%d %x", n, sum.Sum(nil))
	})
	h := start(t)
	h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	c := h.dial(dst)
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.New()
	for range size / len(block) {
		sum.Write(block)
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(c)
	if want := fmt.Sprintf("%d %x", size, sum.Sum(nil)); err != nil || string(reply) != want {
		t.Errorf("got %q, %v; want %q", reply, err, want)
	}
	e := h.events.wait(t, outcome)
	if e.Sent != size || e.Received != int64(len(reply)) || e.Error != "" {
		t.Errorf("outcome is %+v", e)
	}
}

func TestPassDeniedIsNotDialled(t *testing.T) {
	reached := make(chan struct{}, 1)
	dst := tcpServer(t, func(*net.TCPConn) { reached <- struct{}{} })
	for _, effect := range []decision.Effect{decision.EffectDeny, decision.EffectHold, "surprise"} {
		h := start(t)
		h.judge.verdict = func(decision.Request) decision.Verdict { return decision.Verdict{Effect: effect} }
		h.names.set(dst, gateway.Name{Host: host, Opaque: true})
		_, err := h.dial(dst).Read(make([]byte, 1))
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", effect, err)
		}
		h.events.wait(t, outcome)
		if h.resolver.asked.Load() != 0 || len(reached) != 0 {
			t.Errorf("%s: resolved or dialled", effect)
		}
	}
}

func TestPassRefusedAddresses(t *testing.T) {
	dst := tcpServer(t, func(c *net.TCPConn) { fmt.Fprint(c, "hello") })
	h := start(t)
	h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	h.resolver.addrs = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("::ffff:127.0.0.1")}
	h.resolver.check = func(a netip.Addr) error {
		if a.String() != "127.0.0.1" {
			return errors.New("link-local")
		}
		return nil
	}
	if data, _ := io.ReadAll(h.dial(dst)); string(data) != "hello" {
		t.Errorf("the good address was not used: %q", data)
	}
	h = start(t)
	h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	h.resolver.check = func(netip.Addr) error { return errors.New("link-local") }
	if data, _ := io.ReadAll(h.dial(dst)); len(data) != 0 {
		t.Errorf("a refused address answered %q", data)
	}
	h.events.wait(t, func(e gateway.Event) bool { return outcome(e) && e.Error != "" })
}

func TestDialTriesTheNextAddress(t *testing.T) {
	dst := tcpServer(t, func(c *net.TCPConn) { fmt.Fprint(c, "hello") })
	h := start(t)
	h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	// Nothing listens on ::1, where the port belongs to nobody.
	h.resolver.addrs = []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}
	if data, _ := io.ReadAll(h.dial(dst)); string(data) != "hello" {
		t.Errorf("got %q", data)
	}
}

func TestConnectionsOfNobody(t *testing.T) {
	h := start(t)
	for _, at := range []attribution{
		{err: errors.New("not redirected")},
		{cgroup: 1, dst: netip.MustParseAddrPort("198.18.0.9:443")},
	} {
		if data, err := io.ReadAll(h.dialAs(at)); len(data) != 0 {
			t.Errorf("got %q, %v", data, err)
		}
	}
	for range 50 {
		_, _ = io.ReadAll(h.dialAs(attribution{err: errors.New("not redirected")}))
	}
	s := h.gw.Stats()
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	if s.Unattributed != 52 || s.Accepted != 52 || len(h.events.all) > 15 || len(h.events.all) == 0 {
		t.Errorf("%+v, %d events", s, len(h.events.all))
	}
}

func TestDispatch(t *testing.T) {
	h := start(t)
	say := func(word string) gateway.Handler {
		return func(_ context.Context, c net.Conn, run *workload.Run) { fmt.Fprintf(c, "%s for %s", word, run.ID) }
	}
	h.endpoint, h.dns = say("endpoint"), say("dns")
	for dst, want := range map[string]string{
		"169.254.170.2:80":          "endpoint for run_1",
		"[::ffff:169.254.170.2]:80": "endpoint for run_1",
		"[fd00:ec2::23]:80":         "endpoint for run_1",
		"8.8.8.8:53":                "dns for run_1",
		"[2001:db8::1]:53":          "dns for run_1",
		"169.254.170.2:8080":        "",
		"198.18.0.200:443":          "",
	} {
		data, _ := io.ReadAll(h.dial(netip.MustParseAddrPort(dst)))
		if string(data) != want {
			t.Errorf("%s: %q", dst, data)
		}
	}
	h.events.wait(t, refused("unknown-name"))
}

func TestConnectionLimits(t *testing.T) {
	for _, limit := range []func(*gateway.Options){
		func(o *gateway.Options) { o.MaxConnsPerRun = 2 },
		func(o *gateway.Options) { o.MaxConns = 2 },
	} {
		release := make(chan struct{})
		dst := tcpServer(t, func(c *net.TCPConn) { fmt.Fprint(c, "x"); <-release })
		h := start(t, limit)
		h.names.set(dst, gateway.Name{Host: host, Opaque: true})
		one := make([]byte, 1)
		var open []*net.TCPConn
		for range 2 {
			open = append(open, h.dial(dst))
			if _, err := open[len(open)-1].Read(one); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := h.dial(dst).Read(one); n != 0 {
			t.Errorf("a third connection was served: %v", err)
		}
		h.events.wait(t, refused("connection-limit"))
		close(release)
		for _, c := range open {
			_ = c.Close()
		}
		for h.gw.Stats().Open > 0 {
			time.Sleep(time.Millisecond)
		}
		if _, err := h.dial(dst).Read(one); err != nil {
			t.Errorf("after release: %v", err)
		}
	}
}

// TestRecheckCutsWhatLostItsName: a connection under way ends when its name is
// gone, and the other one goes on.
func TestRecheckCutsWhatLostItsName(t *testing.T) {
	echo := func(c *net.TCPConn) { _, _ = io.Copy(c, c) }
	lost, stays := tcpServer(t, echo), tcpServer(t, echo)
	h := start(t)
	for _, dst := range []netip.AddrPort{lost, stays} {
		h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	}
	said := func(c net.Conn) error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err
	}
	a, b := h.dial(lost), h.dial(stays)
	for _, c := range []net.Conn{a, b} {
		if err := said(c); err != nil {
			t.Fatalf("control: %v", err)
		}
	}
	if n := h.gw.Recheck(h.run.ID, h.run.CgroupID); n != 0 {
		t.Errorf("%d connections were cut while both names are allowed", n)
	}
	h.names.remove(lost)
	if n := h.gw.Recheck(h.run.ID, h.run.CgroupID); n != 1 {
		t.Errorf("%d connections were cut, want 1", n)
	}
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Error("the connection whose name is gone is open")
	}
	if err := said(b); err != nil {
		t.Errorf("the other connection: %v", err)
	}
}

// TestTLSToPlainTool shows that a program which speaks TLS to a tool that takes
// plain HTTP gets an alert, and that the refusal is told.
func TestTLSToPlainTool(t *testing.T) {
	h, dst, _ := withHTTP(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })
	if resp, body := h.do(dst, http.MethodGet, "/items/1", "", nil); resp.StatusCode != http.StatusOK {
		t.Fatalf("control, plain HTTP: %s %s", resp.Status, body)
	}
	c := tls.Client(h.dial(dst), &tls.Config{ServerName: host, InsecureSkipVerify: true})
	defer c.Close()
	if err := c.HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
		t.Errorf("handshake: %v, want the alert", err)
	}
	e := h.events.wait(t, refused("tls-not-plain"))
	if e.Tool == "" || !strings.Contains(e.Reason.Text, "http://") {
		t.Errorf("event: %+v", e)
	}
}

// A name for which the run has no budget is not even resolved.
func TestPassKeepsToTheBudget(t *testing.T) {
	s, ca := upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "passed") })
	dst := synthetic(s)
	for _, spent := range []bool{true, false} {
		h := start(t)
		h.names.spent = map[string]bool{host: spent}
		h.names.set(dst, gateway.Name{Host: host})
		err := tls.Client(h.dial(dst), &tls.Config{ServerName: host, RootCAs: pool(t, ca)}).Handshake()
		if !spent {
			if err != nil {
				t.Errorf("with a budget: %v", err)
			}
			continue
		}
		e := h.events.wait(t, refused("name.distinct"))
		if err == nil || e.Target.Name != host || h.judge.decisions() != 0 || h.resolver.asked.Load() != 0 {
			t.Errorf("%v; %+v, %d decisions, %d look-ups", err, e, h.judge.decisions(), h.resolver.asked.Load())
		}
	}
}
