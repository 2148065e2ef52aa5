package gateway

import (
	"net/http"
	"strings"

	"github.com/varvel/varvel/internal/broker"
)

// removeHopByHop removes the headers that are about this connection only (RFC
// 9110 section 7.6.1), those that would make the upstream believe a proxy chain,
// and Expect, which net/http has answered. It is done before the digest is
// computed, so that what was approved is what is sent.
func removeHopByHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect",
		"Forwarded", "X-Real-Ip", "Via",
	} {
		h.Del(name)
	}
	for name := range h {
		if strings.HasPrefix(name, "X-Forwarded-") {
			delete(h, name)
		}
	}
}

// scrub removes a credential from header values, and reports whether there was
// one.
func scrub(h http.Header, token broker.Secret) bool {
	secret := token.Reveal()
	if secret == "" {
		return false
	}
	found := false
	for _, values := range h {
		for i, v := range values {
			if strings.Contains(v, secret) {
				values[i], found = strings.ReplaceAll(v, secret, broker.Redacted), true
			}
		}
	}
	return found
}
