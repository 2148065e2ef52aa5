package issuer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-jose/go-jose/v4"
)

// discovery is the provider metadata (OpenID Connect Discovery 1.0 section 3)
// that relying parties of federation read.
type discovery struct {
	Issuer        string   `json:"issuer"`
	JWKS          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	Claims        []string `json:"claims_supported"`
}

// Handler serves discovery and the JWKS below the path of the issuer's URL.
// Everything in it is public.
func (i *Issuer) Handler() http.Handler {
	prefix := ""
	if u, err := url.Parse(i.opts.URL); err == nil {
		prefix = u.EscapedPath()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"/.well-known/openid-configuration", i.serveDiscovery)
	mux.HandleFunc("GET "+prefix+"/keys", i.serveKeys)
	return mux
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	i.reply(w, discovery{
		Issuer: i.opts.URL, JWKS: i.opts.URL + "/keys",
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"},
		Algorithms: []string{string(jose.ES256)},
		Claims:     []string{"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "txn", "varvel"},
	})
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	i.mu.RLock()
	set := jose.JSONWebKeySet{Keys: make([]jose.JSONWebKey, 0, len(i.keys))}
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.public())
	}
	i.mu.RUnlock()
	i.reply(w, set)
}

func (i *Issuer) reply(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		i.opts.Log.Error("public keys not served", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(i.opts.CachePeriod.Seconds())))
	_, _ = w.Write(append(body, '\n')) // the client is gone: nothing to do
}
