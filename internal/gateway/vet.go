package gateway

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// target is what a request asks for, in its one canonical form.
type target struct {
	method string
	host   string // the name, lower case
	port   uint16 // of the upstream
	path   string // escaped
	query  string // as it came: its syntax is the upstream's matter
}

// authority is the Host that the upstream gets.
func (t target) authority(plain bool) string {
	if plain && t.port == 80 || !plain && t.port == 443 {
		return t.host
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// refusal is a request that is refused before it is judged.
type refusal struct {
	status int
	reason string
	detail string
}

func badRequest(reason, format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, reason, fmt.Sprintf(format, args...)}
}

// vet refuses requests that the gateway and an upstream could understand
// differently, and returns the canonical form of the others. net/http has
// refused before: more than one Host, Content-Lengths that differ, transfer
// codings other than chunked, header names and values with illegal bytes, and
// headers over the limit. A Content-Length beside chunked it has dropped (RFC
// 9112 section 6.3); the request is framed anew, so nothing is smuggled.
func vet(r *http.Request, host string, dialled, port uint16) (target, *refusal) {
	for _, check := range []func(*http.Request) *refusal{vetForm, vetHeader, vetUpgrade} {
		if refused := check(r); refused != nil {
			return target{}, refused
		}
	}
	if !sameHost(r.Host, host, dialled) {
		return target{}, badRequest("host-mismatch", "The Host header is %.255q, but the connection is to %q.", r.Host, host)
	}
	raw, query, _ := strings.Cut(r.RequestURI, "?")
	path, err := canonicalPath(raw)
	if err != nil {
		return target{}, badRequest("path", "Servers could read the path in different ways: %s.", err)
	}
	if i := strings.IndexFunc(query, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }); i >= 0 {
		return target{}, badRequest("query", "The query holds a character that has to be escaped.")
	}
	return target{method: r.Method, host: host, port: port, path: path, query: query}, nil
}

// vetForm admits the origin form only (RFC 9112 section 3.2.1).
func vetForm(r *http.Request) *refusal {
	switch {
	case !r.ProtoAtLeast(1, 1) || r.ProtoAtLeast(2, 0):
		return badRequest("protocol", "The gateway speaks HTTP/1.1 here, not %.20q.", r.Proto)
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return badRequest("method", "%s is not a request to a tool.", r.Method)
	case !strings.HasPrefix(r.RequestURI, "/"):
		return badRequest("request-form", "The request target must begin with a slash: this is not a proxy to be configured, so do not send it proxy requests.")
	}
	return nil
}

// vetHeader refuses headers by which some servers take another method or path
// than those of the request line, or which drop others on the way.
func vetHeader(r *http.Request) *refusal {
	for _, name := range []string{
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Original-Uri",
	} {
		if _, ok := r.Header[name]; ok {
			return badRequest("header", "The header %s could change what the request means at the upstream.", name)
		}
	}
	for name := range r.Header {
		if strings.ContainsRune(name, '_') {
			return badRequest("header", "The header %.80q holds an underscore, which some servers take for a hyphen.", name)
		}
	}
	return nil
}

// vetUpgrade refuses to leave HTTP, after which nothing could be judged. An
// offer of h2c is not taken, which RFC 9110 section 7.8 lets a server do: some
// clients make it with every request.
func vetUpgrade(r *http.Request) *refusal {
	offered := r.Header["Upgrade"]
	if len(offered) == 0 || httpguts.HeaderValuesContainsToken(offered, "h2c") && len(offered) == 1 && !strings.Contains(offered[0], ",") {
		return nil
	}
	return &refusal{http.StatusNotImplemented, "upgrade", "The gateway does not pass protocol upgrades, such as WebSocket, of tools with actions: what follows could not be judged."}
}

// sameHost compares a Host header with the name. A port must be the one that
// was dialled; without one the connection's is meant.
func sameHost(header, host string, dialled uint16) bool {
	if strings.EqualFold(header, host) {
		return true
	}
	name, port, err := net.SplitHostPort(header)
	return err == nil && strings.EqualFold(name, host) && port == strconv.Itoa(int(dialled))
}
