package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// client carries out a worker's operations over the network.
type client struct {
	resolved map[string]string
	roots    map[string]*x509.CertPool
}

func newClient() *client {
	return &client{resolved: map[string]string{}, roots: map[string]*x509.CertPool{}}
}

func (c *client) do(o order) ([]float64, error) {
	switch o.Op {
	case "send":
		return c.send(o, func() (net.Conn, error) { return c.dial(o) })
	case "send_tls":
		return c.send(o, func() (net.Conn, error) { return c.dialTLS(o) })
	case "connect_tls":
		return perOp(o.N, wallClock, func() error { return c.connectTLS(o) })
	case "http":
		return c.load(o)
	case "question":
		return c.questions(o)
	}
	return nil, fmt.Errorf("unknown operation %q", o.Op)
}

// dial connects over IPv4. A name is resolved once, so that the question is not
// part of what is measured.
func (c *client) dial(o order) (net.Conn, error) {
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, err
	}
	if c.resolved[host] == "" {
		ips, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", host)
		if err != nil {
			return nil, err
		}
		c.resolved[host] = ips[0].String()
	}
	return net.DialTimeout("tcp4", net.JoinHostPort(c.resolved[host], port), 10*time.Second)
}

func (c *client) dialTLS(o order) (net.Conn, error) {
	if c.roots[o.CA] == nil {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		c.roots[o.CA] = x509.NewCertPool()
		c.roots[o.CA].AppendCertsFromPEM(pem)
	}
	raw, err := c.dial(o)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{ServerName: o.Name, RootCAs: c.roots[o.CA]})
	if err := conn.Handshake(); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

func (c *client) connectTLS(o order) error {
	for range o.N {
		conn, err := c.dialTLS(o)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// send sends N bytes and waits until all have arrived. The figures are MB/s and
// the sending thread's microseconds of CPU time a megabyte.
func (c *client) send(o order, dial func() (net.Conn, error)) ([]float64, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var header [8]byte
	binary.BigEndian.PutUint64(header[:], uint64(o.N))
	chunk := make([]byte, 256<<10)
	begin := time.Now()
	cpu, err := threadClock()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(header[:]); err != nil {
		return nil, err
	}
	for left := o.N; left > 0; left -= len(chunk) {
		if _, err := conn.Write(chunk[:min(left, len(chunk))]); err != nil {
			return nil, err
		}
	}
	if _, err := io.ReadFull(conn, header[:1]); err != nil {
		return nil, err
	}
	end, err := threadClock()
	megabytes := float64(o.N) / 1e6
	return []float64{megabytes / time.Since(begin).Seconds(), float64((end - cpu).Microseconds()) / megabytes}, err
}

// connections is how many requests are under way at a time.
const connections = 8

// load makes N requests over kept connections. The figures are requests a second
// and the 99th percentile of their durations in microseconds.
func (c *client) load(o order) ([]float64, error) {
	transport := &http.Transport{
		MaxIdleConnsPerHost: connections,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return c.dial(order{Address: address})
		},
	}
	defer transport.CloseIdleConnections()
	if _, err := c.dial(o); err != nil { // resolves before anybody else asks
		return nil, err
	}
	var left atomic.Int64
	left.Store(int64(o.N))
	took := make([][]float64, connections)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range connections {
		wg.Go(func() { took[i], errs[i] = requests(transport, "http://"+o.Address+"/", &left) })
	}
	wg.Wait()
	elapsed := time.Since(begin)
	var all []float64
	for _, t := range took {
		all = append(all, t...)
	}
	return []float64{float64(len(all)) / elapsed.Seconds(), quantile(all, 0.99)}, errors.Join(errs...)
}

// requests makes requests until none are left and returns their microseconds.
func requests(t *http.Transport, url string, left *atomic.Int64) ([]float64, error) {
	var took []float64
	for left.Add(-1) >= 0 {
		begin := time.Now()
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return took, err
		}
		resp, err := t.RoundTrip(req)
		if err != nil {
			return took, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", url, resp.Status)
		}
		if err != nil {
			return took, err
		}
		took = append(took, float64(time.Since(begin).Nanoseconds())/1000)
	}
	return took, nil
}
