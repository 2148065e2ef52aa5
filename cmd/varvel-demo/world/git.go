package world

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxPush bounds the body of a git request, in bytes.
const maxPush = 8 << 20

// Git serves repositories over HTTPS, by git's own http-backend, to whoever has
// a token for it.
type Git struct {
	Root        string // the folder with the repositories
	Verifier    *Verifier
	Certificate func(name string) (*tls.Certificate, error)
	Log         *Log
}

// Serve answers until the context ends.
func (g *Git) Serve(ctx context.Context, l net.Listener) error {
	backend, err := g.backend(ctx)
	if err != nil {
		return err
	}
	return serveTLS(ctx, l, g.demandToken(backend), g.Certificate, g.Log)
}

func (g *Git) backend(ctx context.Context) (http.Handler, error) {
	out, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("git --exec-path: %w", err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Dir:  g.Root,
		Env: []string{
			"GIT_PROJECT_ROOT=" + g.Root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + g.Root, "GIT_CONFIG_NOSYSTEM=1",
		},
		Stderr: io.Discard,
	}, nil
}

// demandToken lets a request through if it brings a valid token.
func (g *Git) demandToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry := Entry{Event: "request", Peer: r.RemoteAddr, Name: r.TLS.ServerName, HTTP: &HTTP{
			Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Status: http.StatusOK,
		}}
		claims, err := g.claims(r)
		if err != nil {
			entry.HTTP.Status, entry.HTTP.Reason = http.StatusUnauthorized, err.Error()
			g.Log.Append(entry)
			w.Header().Set("WWW-Authenticate", `Bearer realm="git"`)
			http.Error(w, "a token is needed", http.StatusUnauthorized)
			return
		}
		entry.Claims = &claims
		g.Log.Append(entry)
		r.Header.Del("Authorization")
		whole(w, r, next)
	})
}

func (g *Git) claims(r *http.Request) (Claims, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return Claims{}, fmt.Errorf("no bearer token")
	}
	return g.Verifier.Verify(r.Context(), token)
}

// whole reads the body before the backend is called, because CGI needs to know
// its length (RFC 3875, section 4.1.2) and a client may send it in chunks.
func whole(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush))
	if err != nil {
		http.Error(w, "the request is too large", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	next.ServeHTTP(w, r)
}
