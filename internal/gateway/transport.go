package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

const (
	// idleUpstream is how long an idle connection to an upstream is kept.
	idleUpstream = 30 * time.Second
	// replyTimeout is how long an upstream has to begin its response.
	replyTimeout = 10 * time.Minute
	tlsTimeout   = 15 * time.Second
	bufferSize   = 32 << 10
)

// transportKey names a pool of upstream connections. Runs never share one, so
// nothing that an upstream ties to a connection passes from run to run.
type transportKey struct {
	run, tool, host string
	port            uint16
}

// pooled is a transport and the definition of the tool that it was made for.
type pooled struct {
	*http.Transport
	revision string
}

// transports hold connections to upstreams. It is a httputil.BufferPool too.
type transports struct {
	buffers sync.Pool

	mu   sync.Mutex // guards pool
	pool map[transportKey]pooled
}

func newTransports() *transports {
	return &transports{
		buffers: sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }},
		pool:    map[transportKey]pooled{},
	}
}

// Get implements httputil.BufferPool.
func (t *transports) Get() []byte { return *t.buffers.Get().(*[]byte) }

// Put implements httputil.BufferPool.
func (t *transports) Put(b []byte) { t.buffers.Put(&b) }

// get returns the transport for a request. One that changes something gets its
// own, which dials a new connection for it alone: net/http repeats a request
// only if it was sent on a connection that had been used before.
func (t *transports) get(x *exchange) (http.RoundTripper, error) {
	base, err := t.shared(x)
	if err != nil {
		return nil, err
	}
	if x.body == nil && x.action.Name != "" {
		return base, nil
	}
	once := base.Clone()
	once.DisableKeepAlives = true
	return once, nil
}

// shared returns the run's transport for the tool's host. One that was made
// for another definition of the tool is closed.
func (t *transports) shared(x *exchange) (*http.Transport, error) {
	key := transportKey{run: x.run.ID, tool: x.tool.Name, host: x.target.host, port: x.target.port}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p, ok := t.pool[key]; ok {
		if p.revision == x.tool.Revision {
			return p.Transport, nil
		}
		p.CloseIdleConnections()
		delete(t.pool, key)
	}
	transport, err := x.g.newTransport(x.run, x.tool, x.target)
	if err != nil {
		return nil, err
	}
	t.pool[key] = pooled{transport, x.tool.Revision}
	return transport, nil
}

// drop closes the idle connections of a run. Those in use end with their
// requests.
func (t *transports) drop(run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, p := range t.pool {
		if key.run == run {
			p.CloseIdleConnections()
			delete(t.pool, key)
		}
	}
}

// newTransport connects to one host and port, whatever it is asked for, and
// demands a certificate for that host.
func (g *Gateway) newTransport(run *workload.Run, t *tool.Tool, to target) (*http.Transport, error) {
	roots, err := rootsOf(t)
	if err != nil {
		return nil, err
	}
	u := upstream{host: to.host, port: to.port, within: t.Within, plain: t.Upstream == tool.UpstreamPlain, via: t.Via, run: run}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return g.dial(ctx, u) },
		TLSClientConfig: &tls.Config{
			RootCAs: roots, ServerName: to.host, MinVersion: tls.VersionTLS12,
			ClientSessionCache: tls.NewLRUClientSessionCache(4),
		},
		TLSHandshakeTimeout:    tlsTimeout,
		ResponseHeaderTimeout:  replyTimeout,
		IdleConnTimeout:        idleUpstream,
		MaxIdleConnsPerHost:    16,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true, // bytes pass as they are
		Protocols:              &protocols,
	}, nil
}

// rootsOf returns the authorities of a tool's upstream: the system's, and
// those of its ca_file.
func rootsOf(t *tool.Tool) (*x509.CertPool, error) {
	if t.CAFile == "" {
		return nil, nil // crypto/tls uses the system's
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	pem, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read ca_file of tool %q: %w", t.Name, err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s of tool %q holds no certificate in PEM", t.CAFile, t.Name)
	}
	return roots, nil
}
