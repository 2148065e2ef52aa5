package world

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// Shared is an HTTPS server behind one address that two names share, as at a
// hosting provider. It tells the names apart by what the client asks for.
type Shared struct {
	Certificate func(name string) (*tls.Certificate, error)
	Log         *Log
}

// Serve answers until the context ends.
func (s *Shared) Serve(ctx context.Context, l net.Listener) error {
	return serveTLS(ctx, l, http.HandlerFunc(s.handle), s.Certificate, s.Log)
}

// handle writes down the request, with its body, and says who answered.
func (s *Shared) handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	status := http.StatusOK
	switch {
	case err != nil:
		status = http.StatusRequestEntityTooLarge
	case r.TLS.ServerName != hostOf(r.Host):
		// RFC 9110, section 7.4: a request for another authority than the connection's.
		status = http.StatusMisdirectedRequest
	}
	s.Log.Append(Entry{
		Event: "request", Peer: r.RemoteAddr, Name: r.TLS.ServerName, Data: printable(body),
		HTTP: &HTTP{Method: r.Method, Host: r.Host, Path: r.URL.Path, Status: status},
	})
	w.WriteHeader(status)
	fmt.Fprintf(w, "%d from %s\n", status, r.TLS.ServerName)
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return strings.ToLower(hostport)
}

// serveTLS runs an HTTPS server until the context ends. Every connection and
// every TLS greeting is written down, also where no request follows.
func serveTLS(ctx context.Context, l net.Listener, h http.Handler, certificate func(string) (*tls.Certificate, error), log *Log) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: idle,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState: func(conn net.Conn, state http.ConnState) {
			if state == http.StateNew {
				log.Append(Entry{Event: "accept", Peer: conn.RemoteAddr().String(), Type: "tcp"})
			}
		},
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"},
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				log.Append(Entry{Event: "hello", Peer: hello.Conn.RemoteAddr().String(), Name: hello.ServerName})
				return certificate(hello.ServerName)
			},
		},
	}
	defer context.AfterFunc(ctx, func() {
		// What is still being answered gets a moment to end.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})()
	return unlessDone(ctx, server.ServeTLS(l, "", ""))
}
