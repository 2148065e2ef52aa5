package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of what clients can make the daemon hold.
const (
	maxHeader        = 16 << 10 // bytes
	maxBody          = 16 << 10 // bytes
	maxConnections   = 64       // of one user; root has no limit
	maxStreams       = 32       // of all users
	headerTimeout    = 5 * time.Second
	readTimeout      = 30 * time.Second
	idleTimeout      = time.Minute
	writeTimeout     = 30 * time.Second
	shutdownPatience = 2 * time.Second
)

// Server is the admin API. It is safe for concurrent use.
type Server struct {
	opts    Options
	mux     *http.ServeMux
	denials *denials
	streams chan struct{} // one token for each stream of events

	readTimeout time.Duration // of a request with its body
}

// New returns a Server.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, mux: http.NewServeMux(), denials: newDenials(), streams: make(chan struct{}, maxStreams), readTimeout: readTimeout}
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.handle(r))
	}
	s.mux.Handle("/", s.handle(route{serve: noRoute, roles: anybody}))
	return s, nil
}

// Serve answers on l until ctx ends. It closes l. Requests that are under way
// then have a moment to end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       s.readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		s.shutdown(srv)
	})
	err := srv.Serve(&peerListener{Listener: l, log: s.opts.Log, open: map[uint32]int{}})
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin socket: %w", err)
}

func (s *Server) shutdown(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownPatience)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		s.opts.Log.Debug("admin requests cut off", "error", err)
		srv.Close()
	}
}
