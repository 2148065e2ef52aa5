package issuer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/broker/brokertest"
	"github.com/varvel/varvel/internal/broker/issuer"
	"github.com/varvel/varvel/internal/decision"
)

const url = "https://issuer.example.org/varvel"

func open(t *testing.T, dir string) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(issuer.Options{URL: url, Dir: dir, KeyLifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newDir(t *testing.T) string { return filepath.Join(t.TempDir(), "issuer") }

// jwk is a public key as a relying party sees it.
type jwk struct {
	Kty, Crv, Kid, Alg, Use, X, Y, D string
}

func get(t *testing.T, i *issuer.Issuer, path string, v any) http.Header {
	t.Helper()
	w := httptest.NewRecorder()
	i.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != 200 {
		t.Fatalf("%s: status %d", path, w.Code)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatal(err)
	}
	return w.Header()
}

func keys(t *testing.T, i *issuer.Issuer) map[string]jwk {
	t.Helper()
	var set struct{ Keys []jwk }
	get(t, i, "/varvel/keys", &set)
	all := map[string]jwk{}
	for _, k := range set.Keys {
		if k.D != "" {
			t.Fatal("a private key is published")
		}
		all[k.Kid] = k
	}
	return all
}

// verify checks a token with nothing but the standard library and the JWKS.
func verify(t *testing.T, token string, set map[string]jwk) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("not a compact JWS")
	}
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := json.Unmarshal(decode(parts[0]), &header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(decode(parts[1]), &claims); err != nil {
		t.Fatal(err)
	}
	k, ok := set[header["kid"].(string)]
	if !ok {
		t.Fatalf("kid %v is not in the JWKS", header["kid"])
	}
	number := func(b []byte) *big.Int { return new(big.Int).SetBytes(b) }
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, decode(k.X)...), decode(k.Y)...))
	if err != nil {
		t.Fatal(err)
	}
	digest, sig := sha256.Sum256([]byte(parts[0]+"."+parts[1])), decode(parts[2])
	if len(sig) != 64 || !ecdsa.Verify(public, digest[:], number(sig[:32]), number(sig[32:])) {
		t.Fatal("the signature does not verify")
	}
	return header, claims
}

func mint(t *testing.T, i *issuer.Issuer) string {
	t.Helper()
	token, _, err := i.Mint(t.Context(), brokertest.Request())
	if err != nil {
		t.Fatal(err)
	}
	return token.Reveal()
}

func TestIssuerConforms(t *testing.T) {
	brokertest.TestMinter(t, func(t *testing.T) broker.Minter { return open(t, newDir(t)) }, time.Now)
}

func TestTokenVerifies(t *testing.T) {
	i := open(t, newDir(t))
	header, claims := verify(t, mint(t, i), keys(t, i))
	if header["typ"] != "JWT" || header["alg"] != "ES256" || len(header) != 3 {
		t.Errorf("header is %v", header)
	}
	r := brokertest.Request()
	for name, want := range map[string]any{
		"iss": url, "sub": r.Actor.Account, "aud": r.Audience, "txn": r.Run.ID,
	} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %v", name, claims[name], want)
		}
	}
	extra, _ := claims["varvel"].(map[string]any)
	if extra["run"] != r.Run.ID || extra["agent"] != "bot" || extra["node"] != "node-1" || extra["boot"] != "boot-1" || extra["tool"] != "ledger" {
		t.Errorf("varvel is %v", extra)
	}
	iat, nbf, exp := claims["iat"].(float64), claims["nbf"].(float64), claims["exp"].(float64)
	if nbf != iat || exp-iat != 180 || claims["jti"] == "" {
		t.Errorf("times are %v %v %v, jti %v", iat, nbf, exp, claims["jti"])
	}
	if _, ok := claims["act"]; ok || len(claims) != 9 {
		t.Errorf("claims are %v", claims)
	}
}

func TestDelegatedRunsAreRefused(t *testing.T) {
	r := brokertest.Request()
	r.Actor.Person = &decision.Person{Issuer: "https://login.example.org", Subject: "1"}
	if token, _, err := open(t, newDir(t)).Mint(t.Context(), r); err == nil || !token.Empty() {
		t.Error("a delegated run got the machine account's token")
	}
}

func TestDiscovery(t *testing.T) {
	i := open(t, newDir(t))
	var doc map[string]any
	h := get(t, i, "/varvel/.well-known/openid-configuration", &doc)
	if doc["issuer"] != url || doc["jwks_uri"] != url+"/keys" || h.Get("Cache-Control") != "public, max-age=300" || h.Get("Content-Type") != "application/json" {
		t.Errorf("%v, %v", doc, h)
	}
	for _, request := range []string{"POST /varvel/keys", "GET /keys", "GET /varvel/", "DELETE /varvel/.well-known/openid-configuration"} {
		method, path, _ := strings.Cut(request, " ")
		w := httptest.NewRecorder()
		i.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code < 400 {
			t.Errorf("%s: status %d", request, w.Code)
		}
	}
}

func TestKeysSurviveRestart(t *testing.T) {
	dir := newDir(t)
	first := open(t, dir)
	token, before := mint(t, first), keys(t, first)
	second := open(t, dir)
	verify(t, token, keys(t, second))
	verify(t, mint(t, second), before)
	if len(before) != 2 || len(keys(t, second)) != 2 {
		t.Errorf("%d and %d keys, want the current and the next", len(before), len(keys(t, second)))
	}
}

// TestRotation walks through three key lifetimes with a relying party that
// fetches the JWKS exactly as often as Cache-Control lets it.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := newDir(t)
		i := open(t, dir)
		cached, kids := keys(t, i), map[string]bool{}
		var live []string // tokens of the last five minutes
		for minute := range 4 * 60 {
			if minute%5 == 0 {
				cached = keys(t, i)
			}
			if minute == 100 {
				i = open(t, dir) // a restart
			}
			if err := i.Rotate(); err != nil {
				t.Fatal(err)
			}
			live = append(live, mint(t, i))
			live = live[max(0, len(live)-5):]
			for _, token := range live {
				header, _ := verify(t, token, cached)
				kids[header["kid"].(string)] = true
			}
			if n := len(keys(t, i)); n > 3 {
				t.Fatalf("%d keys after %d minutes", n, minute)
			}
			time.Sleep(time.Minute)
		}
		if len(kids) != 4 {
			t.Errorf("%d keys were used in four lifetimes", len(kids))
		}
	})
}

// TestLongDowntime starts when every key is past its life. The key that was
// published last signs until a new one has been published long enough.
func TestLongDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := newDir(t)
		before := keys(t, open(t, dir))
		time.Sleep(1000 * time.Hour)
		i := open(t, dir)
		verify(t, mint(t, i), before)
		published := keys(t, i)
		time.Sleep(10 * time.Minute)
		verify(t, mint(t, i), published)
	})
}

func TestClockSetBack(t *testing.T) {
	dir := newDir(t)
	i, err := issuer.New(issuer.Options{URL: url, Dir: dir, Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	published := keys(t, i)
	verify(t, mint(t, open(t, dir)), published)
}

func TestFilesArePrivate(t *testing.T) {
	dir := newDir(t)
	open(t, dir)
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 2 {
		t.Fatalf("files: %v", files)
	}
	for _, f := range append(files, dir) {
		info, err := os.Lstat(f)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

func TestSpoiledDirectoriesAreRefused(t *testing.T) {
	key := func(dir string) string {
		files, _ := filepath.Glob(filepath.Join(dir, "*.key.json"))
		return files[0]
	}
	for name, spoil := range map[string]func(dir string) error{
		"directory open":   func(dir string) error { return os.Chmod(dir, 0o755) },
		"key readable":     func(dir string) error { return os.Chmod(key(dir), 0o640) },
		"key is garbage":   func(dir string) error { return os.WriteFile(key(dir), []byte("{"), 0o600) },
		"key is empty":     func(dir string) error { return os.Truncate(key(dir), 0) },
		"key is renamed":   func(dir string) error { return os.Rename(key(dir), filepath.Join(dir, "a.key.json")) },
		"key is a link":    func(dir string) error { return os.Rename(key(dir), dir+"-key") },
		"key is a folder":  func(dir string) error { return os.Mkdir(filepath.Join(dir, "b.key.json"), 0o700) },
		"public key only":  func(dir string) error { return publicOnly(key(dir)) },
		"directory linked": func(dir string) error { return os.Rename(dir, dir+"-moved") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			open(t, dir)
			moved := key(dir)
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "key is a link":
				_ = os.Symlink(dir+"-key", moved)
			case "directory linked":
				_ = os.Symlink(dir+"-moved", dir)
			}
			if _, err := issuer.New(issuer.Options{URL: url, Dir: dir}); err == nil {
				t.Error("accepted")
			} else if strings.Contains(err.Error(), `"d"`) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
}

func TestForeignOwnerIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file away")
	}
	dir := newDir(t)
	open(t, dir)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.New(issuer.Options{URL: url, Dir: dir}); err == nil {
		t.Error("accepted")
	}
}

func publicOnly(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	delete(m["key"].(map[string]any), "d")
	data, _ = json.Marshal(m)
	return os.WriteFile(file, data, 0o600)
}

func TestLeftoversAreSwept(t *testing.T) {
	dir := newDir(t)
	open(t, dir)
	left := filepath.Join(dir, "new-123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Lstat(left); !os.IsNotExist(err) {
		t.Error("an interrupted write was left behind")
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]issuer.Options{
		"no URL":         {},
		"slash":          {URL: url + "/"},
		"query":          {URL: url + "?x"},
		"scheme":         {URL: "ftp://x"},
		"user":           {URL: "https://u@x"},
		"token lifetime": {URL: url, TokenLifetime: time.Hour},
		"key lifetime":   {URL: url, KeyLifetime: time.Minute},
	} {
		o.Dir = newDir(t)
		if _, err := issuer.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	i, err := issuer.New(issuer.Options{URL: url, Dir: filepath.Join(b.TempDir(), "k")})
	if err != nil {
		b.Fatal(err)
	}
	r := brokertest.Request()
	for b.Loop() {
		if _, _, err := i.Mint(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
