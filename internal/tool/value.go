package tool

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// TokenPlaceholder stands for the token in Attach.Value.
const TokenPlaceholder = "{{ token }}"

// ValueError is a value that an operator wrote and that cannot be used. Hint
// says what to write instead; it may be empty.
type ValueError struct {
	Message, Hint string
}

// Error returns the message and the hint.
func (e *ValueError) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

func invalid(hint, format string, args ...any) *ValueError {
	return &ValueError{Message: fmt.Sprintf(format, args...), Hint: hint}
}

// Methods returns the HTTP methods that an action may name: those of RFC 9110,
// RFC 5789 (PATCH) and WebDAV (RFC 3253, RFC 4918, RFC 5323), without CONNECT
// and TRACE.
func Methods() []string {
	return []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
		"COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "REPORT", "SEARCH", "UNLOCK",
	}
}

// CheckMethod returns a *ValueError if an action cannot name the method.
func CheckMethod(s string) error {
	switch {
	case slices.Contains(Methods(), s):
		return nil
	case s == http.MethodConnect || s == http.MethodTrace:
		return invalid("remove it", "method %s is never passed to a tool", s)
	case s == "*":
		return invalid("list the methods: [GET, HEAD]", "method %q is not a method", s)
	case slices.Contains(Methods(), strings.ToUpper(s)):
		return invalid("write "+strings.ToUpper(s)+"; methods are upper case", "method %q is not known", s)
	}
	return invalid("", "method %q is not known", s)
}

// ParseHeader returns the canonical form of a header name that the gateway may
// set or read. The error is a *ValueError.
func ParseHeader(s string) (string, error) {
	if !httpguts.ValidHeaderFieldName(s) {
		return "", invalid("use letters, digits and hyphens, without a colon", "%q is not a header name", s)
	}
	name := http.CanonicalHeaderKey(s)
	if strings.HasPrefix(name, "Proxy-") || slices.Contains(reservedHeaders(), name) {
		return "", invalid("choose another header; the gateway itself sets this one", "header %s belongs to the connection and cannot be used", name)
	}
	return name, nil
}

// reservedHeaders are those that frame a message or belong to one hop
// (RFC 9110 section 7.6.1, RFC 9112 section 6).
func reservedHeaders() []string {
	return []string{"Connection", "Content-Length", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}
}

// CheckAttachValue returns a *ValueError unless s is a header value with
// exactly one TokenPlaceholder.
func CheckAttachValue(s string) error {
	hint := `write "Bearer {{ token }}"`
	before, after, found := strings.Cut(s, TokenPlaceholder)
	switch {
	case !found:
		return invalid(hint, "value %q does not contain {{ token }}", s)
	case strings.ContainsAny(before+after, "{}"):
		return invalid(hint, "value %q contains more than one {{ token }} or another template", s)
	case !httpguts.ValidHeaderFieldValue(s) || strings.TrimSpace(s) != s:
		return invalid(hint, "value %q is not a header value", s)
	}
	return nil
}

// Split returns the text before and after the token.
func (a *Attach) Split() (prefix, suffix string) {
	prefix, suffix, _ = strings.Cut(a.Value, TokenPlaceholder)
	return prefix, suffix
}
