package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/tool"
)

// Each benchmark alternates between the direct way and that through the
// gateway, and reports the gateway's time as a ratio of the direct one's.

func BenchmarkHTTP(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	b.Cleanup(s.Close)
	h, dst := start(b), synthetic(s)
	tl := httpTool(b, dst.Port(), "")
	tl.Upstream = tool.UpstreamPlain
	h.names.set(dst, gateway.Name{Host: host, Tool: tl})
	direct := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("tcp", s.Listener.Addr().String())
	}}}
	url := fmt.Sprintf("http://%s:%d/items/1", host, dst.Port())
	compare(b, fetcher(b, direct, url), fetcher(b, h.client(dst), url))
}

func fetcher(b *testing.B, c *http.Client, url string) func() {
	return func() {
		resp, err := c.Get(url)
		if err != nil || resp.StatusCode != 200 {
			b.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

func BenchmarkPass(b *testing.B) {
	const size = 64 << 20
	block := make([]byte, 1<<20)
	dst := tcpServer(b, func(c *net.TCPConn) {
		for range size / len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	h := start(b)
	h.names.set(dst, gateway.Name{Host: host, Opaque: true})
	drain := func(c net.Conn) {
		n, err := io.Copy(io.Discard, c)
		_ = c.Close()
		if n != size {
			b.Fatal(n, err)
		}
	}
	b.SetBytes(2 * size)
	compare(b, func() {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", dst.Port()))
		if err != nil {
			b.Fatal(err)
		}
		drain(c)
	}, func() { drain(h.dial(dst)) })
}

// compare runs both in turn and reports their times and the ratio.
func compare(b *testing.B, direct, through func()) {
	b.Helper()
	direct()
	through() // connections are open now
	var times [2]time.Duration
	n := 0
	for b.Loop() {
		for i, f := range []func(){direct, through} {
			begin := time.Now()
			f()
			times[i] += time.Since(begin)
		}
		n++
	}
	b.ReportMetric(float64(times[0].Microseconds())/float64(n), "direct-µs/op")
	b.ReportMetric(float64(times[1].Microseconds())/float64(n), "gateway-µs/op")
	b.ReportMetric(float64(times[1])/float64(times[0]), "ratio")
}
