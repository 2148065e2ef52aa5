package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/varvel/varvel/internal/broker"
)

// Outcome is how the one execution of an approved action ended.
type Outcome struct {
	Sent   bool   // whether any of the request may have reached the upstream
	Status int    // of the upstream's response; 0 if there was none
	Error  string // what failed; "" if there was a response
}

// sending is the way of an allowed request to its upstream and back.
type sending struct {
	x       *exchange
	token   broker.Secret // empty: none is attached
	event   Event
	sent    *sentBody
	reply   *replyBody
	gotConn bool
	settled bool
}

// send carries out an allowed request: once, and it settles the approval if
// there is one.
func (x *exchange) send() {
	s := &sending{x: x, event: x.outcome()}
	defer s.finish()
	lease, err := x.credential()
	if err != nil {
		s.notSent(credentialStatus(err), "credential", "The tool's credential could not be made, so the request was not sent.", err)
		return
	}
	s.token = lease.Token
	transport, err := x.g.transports.get(x)
	if err != nil {
		s.notSent(http.StatusBadGateway, "upstream-config", "The upstream's certificate authorities could not be read, so the request was not sent.", err)
		return
	}
	if x.approved() && x.r.Context().Err() != nil {
		s.event.Error = "the client went away before the request was sent"
		s.settle(Outcome{Error: s.event.Error})
		return
	}
	s.proxy(transport)
}

// approved reports whether this request owns an approval's one execution.
func (x *exchange) approved() bool { return x.decision.ApprovalID != "" }

// credential returns the token to attach, or an empty lease if the tool
// attaches none.
func (x *exchange) credential() (broker.Lease, error) {
	if attachOf(x.tool) == nil {
		return broker.Lease{}, nil
	}
	return x.g.opts.Tokens.Token(x.r.Context(), x.run, x.tool)
}

func credentialStatus(err error) int {
	if refused := new(broker.Refused); errors.As(err, &refused) {
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// notSent answers for a request that never left.
func (s *sending) notSent(status int, reason, detail string, err error) {
	s.event.Error = err.Error()
	s.settle(Outcome{Error: err.Error()})
	s.x.failed(status, reason, detail, false)
}

// proxy sends the request and streams the response.
func (s *sending) proxy(transport http.RoundTripper) {
	ctx, cancel := s.context()
	defer cancel()
	proxy := &httputil.ReverseProxy{
		Rewrite:        s.rewrite,
		Transport:      transport,
		ModifyResponse: s.response,
		ErrorHandler:   s.broken,
		BufferPool:     s.x.g.transports,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // its errors come to us, too
	}
	proxy.ServeHTTP(&finalOnly{s.x.w}, s.x.r.WithContext(s.trace(ctx)))
}

// context is the client's for most requests. An approved one goes on without
// the client, because a request that is cut off half-way has an unknown
// outcome; it ends with the run.
func (s *sending) context() (context.Context, context.CancelFunc) {
	if !s.x.approved() {
		return context.WithCancel(s.x.r.Context())
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.x.r.Context()))
	stop := context.AfterFunc(s.x.s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// rewrite makes the request that leaves: what was judged, to the tool's own
// name, with the tool's credential.
func (s *sending) rewrite(p *httputil.ProxyRequest) {
	x, out := s.x, p.Out
	scheme := "https"
	if x.plain() {
		scheme = "http"
	}
	out.URL = &url.URL{Scheme: scheme, Host: x.request.HTTP.Authority, RawPath: x.target.path, RawQuery: x.target.query}
	out.URL.Path, _ = url.PathUnescape(x.target.path) // canonical, so it has no bad escape
	out.Host = x.request.HTTP.Authority
	out.Trailer, out.GetBody = nil, nil // without GetBody nothing is sent twice
	s.attachBody(out)
	if a := attachOf(x.tool); a != nil {
		prefix, suffix := a.Split()
		out.Header[a.Header] = []string{prefix + s.token.Reveal() + suffix}
		s.event.Injected = true
	}
}

// attachBody sends the bytes that were judged, or streams.
func (s *sending) attachBody(out *http.Request) {
	in := out.Body
	if b := s.x.body; b != nil {
		out.ContentLength, out.TransferEncoding = int64(len(b.data)), nil
		in = io.NopCloser(bytes.NewReader(b.data))
	}
	if out.ContentLength == 0 || in == nil {
		out.Body = http.NoBody
		return
	}
	s.sent = &sentBody{ReadCloser: in}
	out.Body = s.sent
}

// response looks at the upstream's response before any of it goes back.
func (s *sending) response(r *http.Response) error {
	if r.StatusCode == http.StatusSwitchingProtocols {
		return errors.New("the upstream switched protocols without being asked")
	}
	s.event.Status = r.StatusCode
	s.settle(Outcome{Sent: true, Status: r.StatusCode})
	s.event.Scrubbed = scrub(r.Header, s.token)
	s.reply = &replyBody{ReadCloser: r.Body, end: func() {
		if scrub(r.Trailer, s.token) {
			s.event.Scrubbed = true
		}
	}}
	r.Body = s.reply
	return nil
}

// broken is called when there is no response.
func (s *sending) broken(_ http.ResponseWriter, _ *http.Request, err error) {
	s.event.Status = 0
	s.event.Error = s.clean(err.Error())
	s.settle(Outcome{Sent: s.gotConn, Error: s.event.Error})
	detail := "The upstream could not be reached."
	if s.gotConn {
		detail = "The upstream was reached, but gave no valid response."
	}
	s.x.failed(http.StatusBadGateway, "upstream", detail, s.gotConn)
}

// clean removes the credential from an error text, where it has no business
// but might come back from an upstream.
func (s *sending) clean(text string) string {
	if secret := s.token.Reveal(); secret != "" {
		text = strings.ReplaceAll(text, secret, broker.Redacted)
	}
	return text[:min(len(text), 1024)]
}

// settle tells the approval's outcome, once.
func (s *sending) settle(o Outcome) {
	if !s.x.approved() || s.settled {
		return
	}
	s.settled = true
	ctx := context.WithoutCancel(s.x.r.Context())
	if err := s.x.g.opts.Settler.Settle(ctx, s.x.decision.ApprovalID, o); err != nil {
		s.x.g.opts.Log.Error("outcome of an approved action not kept", "approval", s.x.decision.ApprovalID, "sent", o.Sent, "status", o.Status, "error", err)
	}
}

// finish reports the outcome, also when ReverseProxy panics with
// http.ErrAbortHandler because a body broke off; that panic goes on to
// net/http, which closes the connection.
func (s *sending) finish() {
	aborted := recover()
	e := &s.event
	if aborted != nil && e.Error == "" {
		e.Error = "the response broke off"
	}
	if s.sent != nil {
		e.Sent = s.sent.n.Load()
	}
	if s.reply != nil {
		e.Received = s.reply.n
		if s.reply.err != nil {
			e.Error = s.clean(s.reply.err.Error())
		}
	}
	s.settle(Outcome{Sent: s.gotConn, Status: e.Status, Error: e.Error})
	e.Duration = s.x.g.opts.Now().Sub(s.x.start)
	s.x.g.report(s.x.r.Context(), *e)
	if aborted != nil {
		panic(aborted)
	}
}
