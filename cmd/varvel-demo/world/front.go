package world

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// Front puts TLS before a server that has none.
type Front struct {
	To          string // address:port
	Certificate func(name string) (*tls.Certificate, error)
	Log         *Log
}

// Serve answers until the context ends.
func (f *Front) Serve(ctx context.Context, l net.Listener) error {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: f.To})
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			f.Log.Append(Entry{Event: "request", HTTP: &HTTP{
				Method: r.Request.Method, Host: r.Request.Host, Path: r.Request.URL.Path, Status: r.StatusCode,
			}})
			return nil
		},
		Transport: &http.Transport{},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return serveTLS(ctx, l, proxy, f.Certificate, f.Log)
}
