package endpoint

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/varvel/varvel/internal/gateway/problem"
)

// denial is a refusal of the endpoint itself.
type denial struct {
	status int
	reason string
	detail string
	help   string
}

func write(w http.ResponseWriter, d denial) {
	problem.Write(w, problem.Details{
		Type: problem.TypeFor(d.reason), Status: d.status, Reason: d.reason, Detail: d.detail, Help: d.help,
	})
}

// RequestHeader has to be "true" in requests for a token. A redirect, a web
// page or a tool that fetches a URL for somebody else cannot add it.
const RequestHeader = "Varvel-Request"

// vet refuses requests that a program of the run did not make for itself.
func (e *Endpoint) vet(r *http.Request) *denial {
	if name := foreignHeader(r.Header); name != "" {
		return &denial{
			http.StatusForbidden, "forwarded", fmt.Sprintf("The request has the header %s, so it was forwarded or made by a web page.", name),
			"Ask directly. Set NO_PROXY=169.254.170.2 if a proxy is configured.",
		}
	}
	if _, ok := e.hosts[strings.ToLower(r.Host)]; !ok || !strings.HasPrefix(r.RequestURI, "/") {
		return &denial{
			http.StatusForbidden, "host-mismatch", "The Host header is not the endpoint's address, so a name was made to lead here, or the request went to a proxy.",
			"Use http://169.254.170.2/.",
		}
	}
	if r.Method != http.MethodGet {
		return &denial{http.StatusMethodNotAllowed, "method", "Only GET is served here.", ""}
	}
	if r.ContentLength != 0 {
		return &denial{http.StatusBadRequest, "body", "A request here has no body.", ""}
	}
	if r.URL.Path == "/v1/token" && (len(r.Header[RequestHeader]) != 1 || r.Header[RequestHeader][0] != "true") {
		return &denial{
			http.StatusForbidden, "no-request-header", "A request for a token needs the header Varvel-Request: true.",
			"curl -H 'Varvel-Request: true' 'http://169.254.170.2/v1/token?tool=NAME'",
		}
	}
	return nil
}

// foreignHeader returns a header that proxies and browsers add and other
// clients do not.
func foreignHeader(h http.Header) string {
	for name := range h {
		switch {
		case strings.HasPrefix(name, "X-Forwarded-"), strings.HasPrefix(name, "Sec-Fetch-"):
			return name
		}
		switch name {
		case "Via", "Forwarded", "Origin", "Referer", "X-Real-Ip", "X-Forwarded":
			return name
		}
	}
	return ""
}

// onlyParam returns the value of the one query parameter that is allowed. It
// reports false if there is another, or if it is repeated or malformed.
func onlyParam(r *http.Request, name string) (string, bool) {
	if strings.Contains(r.URL.RawQuery, ";") {
		return "", false
	}
	values := r.URL.Query()
	switch {
	case len(values) == 0:
		return "", r.URL.RawQuery == ""
	case len(values) != 1 || len(values[name]) != 1:
		return "", false
	}
	return values[name][0], true
}
