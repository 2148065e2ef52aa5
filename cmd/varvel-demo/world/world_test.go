package world

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// newLog returns a log and a function that reads it.
func newLog(t *testing.T) (*Log, func() []Entry) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	log, err := CreateLog(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log, func() []Entry {
		t.Helper()
		entries, err := ReadLog(path)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
}

// serving runs a server for the time of the test, which fails if the server does.
func serving(t *testing.T, serve func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listenUDP(t *testing.T) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNameServer(t *testing.T) {
	log, read := newLog(t)
	zone := NewPlan("").Zone()
	s := &NameServer{Zone: zone, Any: netip.MustParseAddr("192.0.2.66"), Log: log}
	udp, tcp := listenUDP(t), listen(t)
	serving(t, func(ctx context.Context) error { return s.Serve(ctx, udp, tcp) })
	tests := []struct {
		net, name string
		qtype     uint16
		want      []string
		rcode     int
	}{
		{"udp", "allowed.demo.test.", dns.TypeA, []string{"192.0.2.20"}, 0},
		{"tcp", "Allowed.Demo.Test.", dns.TypeAAAA, []string{"2001:db8::14"}, 0},
		{"udp", "other.demo.test.", dns.TypeA, []string{"192.0.2.20"}, 0},
		{"udp", "prometheus.demo.test.", dns.TypeAAAA, nil, 0},
		{"udp", "secret.exfil.test.", dns.TypeA, []string{"192.0.2.66"}, 0},
		{"udp", "unknown.demo.test.", dns.TypeA, nil, dns.RcodeNameError},
	}
	for _, tt := range tests {
		addr := map[string]string{"udp": udp.LocalAddr().String(), "tcp": tcp.Addr().String()}[tt.net]
		reply, _, err := (&dns.Client{Net: tt.net}).Exchange(new(dns.Msg).SetQuestion(tt.name, tt.qtype), addr)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, rr := range reply.Answer {
			got = append(got, rr.String()[strings.LastIndex(rr.String(), "\t")+1:])
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || reply.Rcode != tt.rcode {
			t.Errorf("%s: %s, rcode %d", tt.name, diff, reply.Rcode)
		}
	}
	var asked []string
	for _, e := range read() {
		asked = append(asked, e.Type+" "+e.Name)
	}
	want := []string{"A allowed.demo.test", "AAAA allowed.demo.test", "A other.demo.test", "AAAA prometheus.demo.test", "A secret.exfil.test", "A unknown.demo.test"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
}

func TestUnlisted(t *testing.T) {
	log, read := newLog(t)
	s := &Unlisted{Log: log}
	tcp, udp := listen(t), listenUDP(t)
	serving(t, func(ctx context.Context) error { return s.ServeTCP(ctx, tcp) })
	serving(t, func(ctx context.Context) error { return s.ServeUDP(ctx, udp) })
	for _, addr := range []net.Addr{tcp.Addr(), udp.LocalAddr()} {
		conn, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "by "+addr.Network()+"\x1b[2J")
		if n, err := conn.Read(make([]byte, 64)); err != nil || n == 0 {
			t.Errorf("no answer by %s: %v", addr.Network(), err)
		}
		conn.Close()
	}
	var got []string
	for _, e := range read() {
		got = append(got, e.Event+" "+e.Type+" "+e.Data)
	}
	if diff := cmp.Diff([]string{"accept tcp ", "bytes tcp by tcp.[2J", "bytes udp by udp.[2J"}, got); diff != "" {
		t.Error(diff)
	}
}

// clientFor trusts the authority and reaches l whatever the name.
func clientFor(a *Authority, l net.Listener) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: a.Pool()},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		},
	}}
}

func TestShared(t *testing.T) {
	authority, err := NewAuthority(NameAllowed, NameOther)
	if err != nil {
		t.Fatal(err)
	}
	log, read := newLog(t)
	l := listen(t)
	s := &Shared{Certificate: authority.Certificate, Log: log}
	serving(t, func(ctx context.Context) error { return s.Serve(ctx, l) })
	client := clientFor(authority, l)
	for _, tt := range []struct {
		url, host string
		status    int // 0: no connection
	}{
		{"https://" + NameAllowed + "/a", "", 200},
		{"https://" + NameOther + "/b", "", 200},
		{"https://" + NameAllowed + "/c", NameOther, 421},
		{"https://stranger.test/d", "", 0},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", tt.url, strings.NewReader("body"))
		req.Host = tt.host
		resp, err := client.Do(req)
		status := 0
		if err == nil {
			status = resp.StatusCode
			resp.Body.Close()
		}
		if status != tt.status {
			t.Errorf("%s, Host %q: status %d, want %d (%v)", tt.url, tt.host, status, tt.status, err)
		}
	}
	var got []string
	for _, e := range read() {
		switch e.Event {
		case "hello":
			got = append(got, "hello "+e.Name)
		case "request":
			got = append(got, e.Name+" "+e.HTTP.Path+" "+e.Data)
		}
	}
	want := []string{
		"hello " + NameAllowed, NameAllowed + " /a body", "hello " + NameOther, NameOther + " /b body",
		"hello " + NameAllowed, NameAllowed + " /c body", "hello stranger.test",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// fakeIssuer is an OpenID Connect issuer with one key.
type fakeIssuer struct {
	url string
	key *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *fakeIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeIssuer{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"issuer": f.url, "jwks_uri": f.url + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256"}}})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// mint signs claims with any key and algorithm.
func mint(t *testing.T, key any, alg jose.SignatureAlgorithm, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// good returns claims that are accepted, with changes; a nil takes a claim away.
func (f *fakeIssuer) good(changes map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": f.url, "aud": Audience, "sub": "spiffe://demo.test/agent/demo", "txn": "run_1",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(),
	}
	for name, value := range changes {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func TestVerifier(t *testing.T) {
	issuer := newIssuer(t)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := &Verifier{Issuer: issuer.url, Audience: Audience, Client: http.DefaultClient}
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	signed := func(changes map[string]any) string { return mint(t, issuer.key, jose.ES256, issuer.good(changes)) }
	tests := []struct {
		name, token string
		ok          bool
	}{
		{"good", signed(nil), true},
		{"expired", signed(map[string]any{"exp": past}), false},
		{"not yet valid", signed(map[string]any{"nbf": future}), false},
		{"without an end", signed(map[string]any{"exp": nil}), false},
		{"for somebody else", signed(map[string]any{"aud": "https://other.test"}), false},
		{"for two", signed(map[string]any{"aud": []string{Audience, "https://other.test"}}), false},
		{"for nobody", signed(map[string]any{"aud": nil}), false},
		{"from somebody else", signed(map[string]any{"iss": "https://other.test"}), false},
		{"signed by another key", mint(t, other, jose.ES256, issuer.good(nil)), false},
		{"signed with a shared secret", mint(t, []byte(strings.Repeat("k", 32)), jose.HS256, issuer.good(nil)), false},
		{"not a token", "eyJ", false},
		{"empty", "", false},
	}
	for _, tt := range tests {
		claims, err := v.Verify(t.Context(), tt.token)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %+v, %v", tt.name, claims, err)
		}
		want := Claims{Issuer: issuer.url, Subject: "spiffe://demo.test/agent/demo", Audience: Audience, Run: "run_1", Lifetime: "2m0s"}
		if tt.ok && claims != want {
			t.Error(cmp.Diff(want, claims))
		}
	}
	v.Issuer = issuer.url + "/elsewhere"
	if _, err := v.Verify(t.Context(), signed(nil)); err == nil {
		t.Error("an issuer that cannot be asked was believed")
	}
}

// TestGit clones with a real git, with a token and without.
func TestGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	authority, err := NewAuthority(NameGit)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, authority.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := newIssuer(t)
	log, read := newLog(t)
	l := listen(t)
	s := &Git{
		Root: dir, Certificate: authority.Certificate, Log: log,
		Verifier: &Verifier{Issuer: issuer.url, Audience: Audience, Client: http.DefaultClient},
	}
	serving(t, func(ctx context.Context) error { return s.Serve(ctx, l) })
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_TERMINAL_PROMPT=0"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{
		{"init", "-q", dir + "/work"},
		{"-C", dir + "/work", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "--allow-empty", "-m", "one"},
		{"clone", "-q", "--bare", dir + "/work", dir + "/falcon.git"},
	} {
		if out, err := git(args...); err != nil {
			t.Fatal(args, err, out)
		}
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	clone := func(to string, more ...string) (string, error) {
		args := append([]string{"-c", "http.sslCAInfo=" + ca, "-c", "http.curloptResolve=" + NameGit + ":" + port + ":127.0.0.1"}, more...)
		return git(append(args, "clone", "-q", "https://"+NameGit+":"+port+"/falcon.git", filepath.Join(dir, to))...)
	}
	if out, err := clone("without"); err == nil {
		t.Errorf("cloned without a token: %s", out)
	}
	token := mint(t, issuer.key, jose.ES256, issuer.good(nil))
	if out, err := clone("with", "-c", "http.extraHeader=Authorization: Bearer "+token); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	var statuses []int
	for _, e := range read() {
		if e.Event == "request" {
			statuses = append(statuses, e.HTTP.Status)
			if (e.Claims != nil) != (e.HTTP.Status == 200) || strings.Contains(e.Data+e.HTTP.Reason, token) {
				t.Errorf("entry %+v", e)
			}
		}
	}
	if len(statuses) < 3 || statuses[0] != 401 || slices.Contains(statuses[1:], 401) {
		t.Errorf("statuses %d", statuses)
	}
}

func TestReadLogLeavesOutAnUnfinishedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("{\"event\":\"a\"}\n{\"event\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := ReadLog(path)
	if err != nil || len(entries) != 1 {
		t.Errorf("%+v, %v", entries, err)
	}
	if err := os.WriteFile(path, []byte("{]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLog(path); err == nil {
		t.Error("a broken line was read")
	}
}
