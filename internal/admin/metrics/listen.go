package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/varvel/varvel/internal/admin/health"
)

const (
	scrapeTimeout = 10 * time.Second
	maxScrapes    = 4
)

// Handler answers /metrics and /healthz. It tells nothing that is secret, and
// asks nobody who they are.
func Handler(g prometheus.Gatherer, h *health.Health, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	}))
	mux.Handle("GET /healthz", healthz{h})
	return mux
}

// Serve answers on l until ctx ends. It closes l.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: scrapeTimeout, WriteTimeout: 2 * scrapeTimeout,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics listener: %w", err)
	}
	return nil
}

// healthz answers 200 if nothing is failing, else 503, with one sentence for
// each finding: text, or JSON if it is asked for.
type healthz struct{ health *health.Health }

func (h healthz) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	findings := h.health.Findings()
	status := http.StatusOK
	for _, f := range findings {
		if f.Severity == health.Failing {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	if !strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		writeText(w, findings)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client is gone if this fails: nothing to do.
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": status == http.StatusOK, "findings": findings})
}

func writeText(w io.Writer, findings []health.Finding) {
	if len(findings) == 0 {
		fmt.Fprintln(w, "ok")
	}
	for _, f := range findings {
		fmt.Fprintf(w, "%s %s: %s %s\n", f.Severity, f.Code, f.Sentence, f.Remedy)
	}
}
