package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
)

// sentBody counts what is read of a request body. The transport may still read
// it when the response has ended.
type sentBody struct {
	io.ReadCloser
	n atomic.Int64
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// replyBody counts a response body, remembers how it broke, and calls end at
// its end, when the trailers are there.
type replyBody struct {
	io.ReadCloser
	n   int64
	err error
	end func()
}

func (b *replyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		b.end()
	case err != nil:
		b.err = err
	}
	return n, err
}

// finalOnly keeps back informational responses (1xx): their headers do not
// pass where credentials are scrubbed.
type finalOnly struct{ http.ResponseWriter }

func (w *finalOnly) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Unwrap lets http.ResponseController flush.
func (w *finalOnly) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// trace notes when the request has a connection, after which some of it may
// reach the upstream.
func (s *sending) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { s.gotConn = true },
	})
}
