package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gowebpki/jcs"

	"github.com/varvel/varvel/internal/tool"
)

const (
	// bodyTimeout is how long a workload has to send a body that is judged.
	bodyTimeout = time.Minute
	// previewBody and previewLine bound what an approver is shown, in bytes.
	previewBody = 2 << 10
	previewLine = 2 << 10
)

// body is a request body that was read before the decision.
type body struct{ data []byte }

// read prepares the decision's request. For a bound request it reads the whole
// body, and computes the digest.
func (x *exchange) read() bool {
	x.request = x.describe()
	if !x.bound() {
		return true
	}
	data, refused := x.readBody()
	if refused != nil {
		x.refuse(refused)
		return false
	}
	x.body = &body{data}
	digest, refused := x.digest()
	if refused != nil {
		x.refuse(refused)
		return false
	}
	x.request.Digest, x.request.HTTP.BodySize = digest, int64(len(data))
	x.request.Preview = x.preview()
	return true
}

// readBody reads at most the action's limit, in bounded time.
func (x *exchange) readBody() ([]byte, *refusal) {
	limit := x.action.MaxBody
	tooLarge := &refusal{http.StatusRequestEntityTooLarge, "body-size", fmt.Sprintf(
		"The body of action %q may have %d bytes, because it is read before the decision. The limit is max_body in the tool's definition.", x.action.Name, limit)}
	if x.r.ContentLength > limit {
		return nil, tooLarge
	}
	control := http.NewResponseController(x.w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, badRequest("body", "The body could not be read.")
	}
	data, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, limit))
	if long := new(http.MaxBytesError); errors.As(err, &long) {
		return nil, tooLarge
	}
	if err != nil || control.SetReadDeadline(time.Time{}) != nil {
		return nil, badRequest("body", "The body did not arrive whole and in time.")
	}
	return data, nil
}

// canonicalRequest is what an approval binds to.
type canonicalRequest struct {
	Method    string              `json:"method"`
	Authority string              `json:"authority"`
	Path      string              `json:"path"`
	Query     string              `json:"query"`
	Body      string              `json:"body"`    // hex SHA-256
	Headers   map[string][]string `json:"headers"` // see covered; lower case
}

// covered are the headers that an approval binds to: those by which a server reads
// the body, since the same bytes are another request as a form than as JSON, and
// the tool's digest_headers.
func covered(a tool.Action) []string {
	names := []string{"Content-Type", "Content-Encoding"}
	for _, name := range a.DigestHeaders {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// digest is the SHA-256 of the request as canonical JSON (RFC 8785).
func (x *exchange) digest() (string, *refusal) {
	sum := sha256.Sum256(x.body.data)
	c := canonicalRequest{
		Method: x.target.method, Authority: x.request.HTTP.Authority, Path: x.target.path, Query: x.target.query,
		Body: hex.EncodeToString(sum[:]), Headers: map[string][]string{},
	}
	for _, name := range covered(x.action) {
		for _, v := range x.r.Header[name] {
			if !utf8.ValidString(v) { // JSON would make different values equal
				return "", badRequest("header", "The header %s is not UTF-8, and an approval of this action covers it.", name)
			}
			c.Headers[strings.ToLower(name)] = append(c.Headers[strings.ToLower(name)], v)
		}
	}
	raw, err := json.Marshal(c)
	if err == nil {
		raw, err = jcs.Transform(raw)
	}
	if err != nil {
		return "", badRequest("digest", "The request has no canonical form.")
	}
	sum = sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// preview shows the request to a person: ASCII, escaped and bounded.
func (x *exchange) preview() string {
	scheme := "https"
	if x.plain() {
		scheme = "http"
	}
	line := scheme + "://" + x.request.HTTP.Authority + x.target.path
	if x.target.query != "" {
		line += "?" + x.target.query
	}
	lines := []string{x.target.method + " " + excerpt(line, previewLine)}
	for _, name := range covered(x.action) {
		for _, v := range x.r.Header[name] {
			lines = append(lines, name+": "+excerpt(v, 256))
		}
	}
	if n := len(x.body.data); n > 0 {
		lines = append(lines, fmt.Sprintf("body, %d bytes: %s", n, excerpt(string(x.body.data), previewBody)))
	}
	return strings.Join(lines, "\n")
}

// excerpt escapes all but printable ASCII and bounds the result.
func excerpt(s string, limit int) string {
	cut := s[:min(len(s), limit)]
	quoted := strconv.QuoteToASCII(cut)
	quoted = quoted[1 : len(quoted)-1]
	if len(cut) < len(s) || len(quoted) > limit {
		return quoted[:min(len(quoted), limit)] + "…"
	}
	return quoted
}
