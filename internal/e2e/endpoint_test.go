package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	endpoint4  = "http://169.254.170.2"
	endpoint6  = "http://[fd00:ec2::23]"
	tokenAgent = "agent: bot\ntools: [ledger, svc]\nlaunch: { users: [nobody] }\n"
	otherAgent = "agent: other\ntools: [svc]\nlaunch: { users: [nobody] }\n"
	toolLedger = `tool: ledger
hosts: ["other.e2e.test:443"]
client: http
upstream: tls
credential: { issuer: { audience: "https://ledger.example", lifetime: 1m } }
actions: [{ name: look, http: { methods: [GET], path: /** }, risk: read }]
`
)

// token is a curl that asks for a token.
func token(more ...string) []string {
	args := []string{"curl", "-sS", "-g", "-m", "5", "-w", " status=%{http_code}", "-H", "Varvel-Request: true"}
	return append(args, more...)
}

// TestEndpoint asks for tokens, from who may have one and from who may not.
func TestEndpoint(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{
		"agents.d/bot.yaml": tokenAgent, "agents.d/other.yaml": otherAgent,
		"tools.d/svc.yaml": toolSvc, "tools.d/ledger.yaml": toolLedger,
	}})
	bot, other := n.shell("bot"), n.shell("other")
	const ask = "/v1/token?tool=ledger"
	n.verify(bot.do(token(endpoint4 + ask)...))
	n.verify(bot.do(token(endpoint6 + ask)...))
	refused := []struct {
		name string
		r    result
		want []string
	}{
		{"another tool", bot.do(token(endpoint4 + "/v1/token?tool=svc")...), []string{"no-credential", "status=403"}},
		{"no such tool", bot.do(token(endpoint4 + "/v1/token?tool=nosuch")...), []string{"unknown-tool", "status=403"}},
		{"another run", other.do(token(endpoint4 + ask)...), []string{"unknown-tool", "status=403"}},
		{"without the header", bot.do("curl", "-sS", "-w", " status=%{http_code}", endpoint4+ask), []string{"no-request-header", "status=403"}},
		{"another host", bot.do(token("-H", "Host: evil.example", endpoint4+ask)...), []string{"host-mismatch", "status=403"}},
		{"a forwarded request", bot.do(token("-H", "X-Forwarded-For: 10.0.0.1", endpoint4+ask)...), []string{"forwarded", "status=403"}},
		{"a proxy's request", bot.do(token("-H", "Via: 1.1 proxy", endpoint4+ask)...), []string{"forwarded", "status=403"}},
		{"a page's request", bot.do(token("-H", "Origin: http://evil.example", endpoint4+ask)...), []string{"forwarded", "status=403"}},
		{"another method", bot.do(token("-X", "POST", endpoint4+ask)...), []string{"status=405"}},
	}
	for _, tt := range refused {
		contains(t, tt.name, tt.r.stdout, tt.want...)
		if strings.Contains(tt.r.stdout, "eyJ") {
			t.Errorf("%s: got a token: %s", tt.name, tt.r)
		}
	}
	for _, as := range []user{alice, root} {
		if r := n.do(as, token("-m", "1", endpoint4+ask)...); r.code == 0 {
			t.Errorf("an outsider got an answer: %s", r)
		}
	}
	if raw := fmt.Sprint(n.events("--kind", "credential")); strings.Contains(raw, "eyJ") {
		t.Error("a token is in the audit log")
	}
	n.explains(bot, other)
}

// verify checks a token as a relying party does: by discovery and the keys.
func (n *node) verify(r result) {
	n.t.Helper()
	body, status, _ := strings.Cut(r.stdout, " status=")
	var answer struct {
		AccessToken string `json:"access_token"`
		Audience    string `json:"audience"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != "200" {
		n.t.Fatalf("no token: %s", r)
	}
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	var keys jose.JSONWebKeySet
	n.fetch("http://127.0.0.1:9471/.well-known/openid-configuration", &discovery)
	n.fetch(discovery.Keys, &keys)
	parsed, err := jwt.ParseSigned(answer.AccessToken, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		n.t.Fatal(err)
	}
	var claims jwt.Claims
	var more struct {
		Run string `json:"txn"`
	}
	if err := parsed.Claims(&keys, &claims, &more); err != nil {
		n.t.Fatalf("the signature: %v", err)
	}
	if err := claims.Validate(jwt.Expected{
		Issuer: discovery.Issuer, AnyAudience: jwt.Audience{"https://ledger.example"}, Time: time.Now(),
		Subject: "spiffe://e2e.test/agent/bot",
	}); err != nil {
		n.t.Error(err)
	}
	if life := claims.Expiry.Time().Sub(claims.IssuedAt.Time()); life > time.Minute {
		n.t.Errorf("the token lives %s", life)
	}
	for _, e := range n.events("--kind", "credential", "--run", more.Run) {
		if e.Activity == "minted" && e.Agent == "bot" {
			return
		}
	}
	n.t.Errorf("no event says that the token of %s was made", more.Run)
}

func (n *node) fetch(url string, into any) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.must(alice, "curl", "-sS", "-f", "-m", "5", url)), into); err != nil {
		n.t.Fatal(err)
	}
}

// explains: a run is told of its own refusals, and of no other's.
func (n *node) explains(bot, other *shell) {
	n.t.Helper()
	bot.do(bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted)))
	other.do(bin("client"), "act", "send", "x", "tcp/later.e2e.test:7000")
	n.eventually("the run is told", func() bool {
		return strings.Contains(bot.do("curl", "-sS", endpoint4+"/v1/why").stdout, at(v4(hostUnlisted)))
	})
	mine := bot.do("curl", "-sS", "-g", endpoint4+"/v1/why?dest="+at(v4(hostUnlisted))).stdout
	contains(n.t, "why", mine, "was refused at", "Why:", "Retry:", "does not help", "Helps:", "operator")
	theirs := other.do("curl", "-sS", endpoint6+"/v1/why").stdout
	contains(n.t, "the other's why", theirs, "later.e2e.test")
	if strings.Contains(theirs, at(v4(hostUnlisted))) {
		n.t.Errorf("a run is told of another's refusals: %s", theirs)
	}
	who := bot.do("curl", "-sS", endpoint4+"/v1/whoami").stdout
	contains(n.t, "whoami", who, "spiffe://e2e.test/agent/bot", "run_", "ledger")
}
