package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// seen are the requests that arrived at an upstream.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) handler(_ http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("%s %s %v %q", r.Method, r.RequestURI, r.TransferEncoding, data))
}

func (s *seen) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	s.all = nil
	return all
}

// TestRefusedRequests sends raw bytes. H stands for the right Host header.
func TestRefusedRequests(t *testing.T) {
	var s seen
	h, dst, _ := withHTTP(t, s.handler)
	hostPort := fmt.Sprintf("%s:%d", host, dst.Port())
	for _, tc := range []struct {
		name, raw string
		status    int
	}{
		{"absolute form", "GET http://api.example.com/items/1 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"absolute form, other host", "GET http://evil.example/items/1 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"TRACE", "TRACE /items/1 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\nH\r\n\r\n", 400},
		{"no Host", "GET /items/1 HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET /items/1 HTTP/1.1\r\nH\r\nHost: evil.example\r\n\r\n", 400},
		{"other Host", "GET /items/1 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400},
		{"Host with user", "GET /items/1 HTTP/1.1\r\nHost: x@" + hostPort + "\r\n\r\n", 400},
		{"Host with other port", "GET /items/1 HTTP/1.1\r\nHost: " + host + ":1\r\n\r\n", 400},
		{"Host with trailing dot", "GET /items/1 HTTP/1.1\r\nHost: " + host + ".\r\n\r\n", 400},
		{"Host is an address", "GET /items/1 HTTP/1.1\r\nHost: 198.18.0.7\r\n\r\n", 400},
		{"dot segments", "GET /items/../admin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"escaped dot segments", "GET /items/%2e%2E/admin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"dot segment with parameter", "GET /items/..;/admin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"escaped slash", "GET /items/..%2fadmin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"escaped backslash", "GET /items/..%5Cadmin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"backslash", "GET /items/..\\admin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"NUL", "GET /items/%00 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"twice escaped", "GET /items/%252e%252e/admin HTTP/1.1\r\nH\r\n\r\n", 400},
		{"two slashes", "GET //items/1 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"raw bytes", "GET /items/\xff HTTP/1.1\r\nH\r\n\r\n", 400},
		{"fragment", "GET /items/1#x HTTP/1.1\r\nH\r\n\r\n", 400},
		{"method override", "GET /items/1 HTTP/1.1\r\nH\r\nX-HTTP-Method-Override: DELETE\r\n\r\n", 400},
		{"path override", "GET /items/1 HTTP/1.1\r\nH\r\nX-Original-URL: /admin\r\n\r\n", 400},
		{"underscore", "GET /items/1 HTTP/1.1\r\nH\r\nContent_Length: 5\r\n\r\n", 400},
		{"WebSocket", "GET /items/1 HTTP/1.1\r\nH\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501},
		{"h2c and more", "GET /items/1 HTTP/1.1\r\nH\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n", 501},
		{"HTTP/1.0", "GET /items/1 HTTP/1.0\r\nH\r\n\r\n", 400},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		{"two lengths", "POST /items/1 HTTP/1.1\r\nH\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		{"length list", "POST /items/1 HTTP/1.1\r\nH\r\nContent-Length: 1, 2\r\n\r\nab", 400},
		{"signed length", "POST /items/1 HTTP/1.1\r\nH\r\nContent-Length: +1\r\n\r\na", 400},
		{"two codings", "POST /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501},
		{"coding list", "POST /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"odd coding", "POST /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{"space before colon", "POST /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		{"folded header", "GET /items/1 HTTP/1.1\r\nH\r\nX: a\r\n b\r\n \x00\r\n\r\n", 400},
		{"bare CR", "GET /items/1 HTTP/1.1\r\nH\r\nX: a\rEvil: b\r\n\r\n", 400},
		{"header too long", "GET /items/1 HTTP/1.1\r\nH\r\nX: " + strings.Repeat("a", 65<<10) + "\r\n\r\n", 431},
		{"HTTP/0.9", "GET /items/1\r\n", 400},
		{"absolute form, https", "GET https://api.example.com/items/1 HTTP/1.1\r\nH\r\n\r\n", 400},
		{"Host list", "GET /items/1 HTTP/1.1\r\nHost: " + hostPort + ", evil.example\r\n\r\n", 400},
		{"path parameter", "GET /items/1;jsessionid=2 HTTP/1.1\r\nH\r\n\r\n", 403},
		{"escaped semicolon", "GET /items/1%3bx HTTP/1.1\r\nH\r\n\r\n", 403},
		{"other case of the path", "GET /ITEMS/1 HTTP/1.1\r\nH\r\n\r\n", 403},
		{"other case of the method", "get /items/1 HTTP/1.1\r\nH\r\n\r\n", 403},
		{"trailing slash", "GET /items/1/ HTTP/1.1\r\nH\r\n\r\n", 403},
		{"overlong UTF-8", "GET /items/%c0%ae%c0%ae HTTP/1.1\r\nH\r\n\r\n", 403},
		{"odd expectation", "PUT /items/1 HTTP/1.1\r\nH\r\nExpect: 200-maybe\r\nContent-Length: 1\r\n\r\na", 417},
		{"coding twice in one", "POST /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
		{"chunk length overflows", "PUT /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n", 400},
		{"endless chunk extension", "PUT /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("x", 64<<10) + "\r\na\r\n0\r\n\r\n", 400},
		{"bad chunk", "PUT /items/1 HTTP/1.1\r\nH\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n", 400},
		{"body is short", "PUT /items/1 HTTP/1.1\r\nH\r\nContent-Length: 5\r\n\r\nab", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := h.dial(dst)
			raw := strings.Replace(tc.raw, "\r\nH\r\n", "\r\nHost: "+hostPort+"\r\n", 1)
			go func() {
				_, _ = io.WriteString(c, raw)
				_ = c.CloseWrite()
			}()
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tc.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.status)
			}
			if got := s.take(); len(got) != 0 {
				t.Errorf("the upstream got %q", got)
			}
		})
	}
}

// TestFramingIsMadeAnew sends what is not refused, but could be smuggled by a
// proxy that passes framing on: the upstream gets one request, framed by us.
func TestFramingIsMadeAnew(t *testing.T) {
	var s seen
	h, dst, _ := withHTTP(t, s.handler)
	hostLine := fmt.Sprintf("Host: %s:%d\r\n", host, dst.Port())
	smuggled := "DELETE /items/9 HTTP/1.1\r\n" + hostLine + "\r\n"
	for _, tc := range []struct{ name, raw, want string }{
		{"length beside chunked, bound", "PUT /items/1 HTTP/1.1\r\n" + hostLine + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", `PUT /items/1 [] "ab"`},
		{"length beside chunked, streamed", "POST /items/1 HTTP/1.1\r\n" + hostLine + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", `POST /items/1 [chunked] "ab"`},
		{"request in a body", fmt.Sprintf("PUT /items/1 HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", hostLine, len(smuggled), smuggled), fmt.Sprintf("PUT /items/1 [] %q", smuggled)},
		{"a chunk's extension", "PUT /items/1 HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n2;DELETE=/items/9\r\nab\r\n0\r\n\r\n", `PUT /items/1 [] "ab"`},
		{"expectation", "PUT /items/1 HTTP/1.1\r\n" + hostLine + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab", `PUT /items/1 [] "ab"`},
		{"bare line feeds", strings.ReplaceAll("GET /items/1 HTTP/1.1\r\n"+hostLine+"\r\n", "\r\n", "\n"), `GET /items/1 [] ""`},
		{"h2c is not taken", "GET /items/1 HTTP/1.1\r\n" + hostLine + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", `GET /items/1 [] ""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := h.dial(dst)
			fmt.Fprint(c, tc.raw)
			resp, err := finalResponse(bufio.NewReader(c))
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v, %v", resp, err)
			}
			if got := s.take(); len(got) != 1 || got[0] != tc.want {
				t.Errorf("the upstream got %q, want %q", got, tc.want)
			}
		})
	}
}

// finalResponse skips an informational response (RFC 9110 section 15.2).
func finalResponse(r *bufio.Reader) (*http.Response, error) {
	resp, err := http.ReadResponse(r, nil)
	if err == nil && resp.StatusCode == http.StatusContinue {
		return http.ReadResponse(r, nil)
	}
	return resp, err
}

// TestClientsCannotTouchTheCredential sends a value of their own, or tries to have
// the tool's dropped, in every place where a header can be.
func TestClientsCannotTouchTheCredential(t *testing.T) {
	var got http.Header
	h, dst, _ := withHTTP(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got = r.Header.Clone()
		for name, values := range r.Trailer {
			got["Trailer: "+name] = values
		}
	})
	hostLine := fmt.Sprintf("Host: %s:%d\r\n", host, dst.Port())
	for name, raw := range map[string]string{
		"twice, in other cases": "GET /items/1 HTTP/1.1\r\n" + hostLine + "authorization: Bearer one\r\nAUTHORIZATION: Bearer two\r\n\r\n",
		"named by Connection":   "GET /items/1 HTTP/1.1\r\n" + hostLine + "Connection: Authorization, close\r\n\r\n",
		"in a trailer":          "POST /items/1 HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n0\r\nAuthorization: Bearer one\r\n\r\n",
		"behind an empty one":   "GET /items/1 HTTP/1.1\r\n" + hostLine + "Authorization:\r\nAuthorization: Bearer one\r\n\r\n",
		"from a chain":          "GET /items/1 HTTP/1.1\r\n" + hostLine + "X-Forwarded-User: admin\r\nX-Forwarded-Prefix: /admin\r\nX-Real-IP: 127.0.0.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(dst)
			fmt.Fprint(c, raw)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v, %v", resp, err)
			}
			if v := got["Authorization"]; len(v) != 1 || v[0] != "Bearer "+canary {
				t.Errorf("the upstream got %q", v)
			}
			for name := range got {
				if strings.HasPrefix(name, "Trailer: ") || strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
					t.Errorf("the upstream got %s", name)
				}
			}
		})
	}
}

// TestPipelinedRequestsAreJudgedEach hides a deletion behind a read.
func TestPipelinedRequestsAreJudgedEach(t *testing.T) {
	var s seen
	h, dst, _ := withHTTP(t, s.handler)
	c := h.dial(dst)
	hostLine := fmt.Sprintf("Host: %s:%d\r\n\r\n", host, dst.Port())
	fmt.Fprint(c, "GET /items/1 HTTP/1.1\r\n"+hostLine+"DELETE /items/1 HTTP/1.1\r\n"+hostLine)
	r := bufio.NewReader(c)
	for _, want := range []int{200, 403} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("%v, %v; want %d", resp, err, want)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	if got := s.take(); len(got) != 1 {
		t.Errorf("the upstream got %q", got)
	}
}
