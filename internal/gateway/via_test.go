package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/varvel/varvel/internal/gateway"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// workloadDialer counts what is dialled from the network namespace of a run.
type workloadDialer struct {
	mu   sync.Mutex
	seen []string
	err  error
}

func (d *workloadDialer) DialFrom(ctx context.Context, run *workload.Run, to netip.AddrPort) (*net.TCPConn, error) {
	d.mu.Lock()
	d.seen = append(d.seen, fmt.Sprint(run.ID, " ", to.Addr()))
	d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func TestViaWorkload(t *testing.T) {
	dst := tcpServer(t, func(c *net.TCPConn) { fmt.Fprint(c, "hello") })
	for _, tt := range []struct {
		name, via string
		dialer    *workloadDialer
		works     bool
		dialled   int
		says      string
	}{
		{"from the node", "", &workloadDialer{}, true, 0, ""},
		{"from the run", tool.ViaWorkload, &workloadDialer{}, true, 1, ""},
		{"from a run that cannot", tool.ViaWorkload, &workloadDialer{err: errors.New("no route there")}, false, 1, "no route there"},
		{"without a dialer", tool.ViaWorkload, nil, false, 0, "nothing here can dial"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, func(o *gateway.Options) {
				if tt.dialer != nil {
					o.Dialer = tt.dialer
				}
			})
			h.names.set(dst, gateway.Name{Host: host, Opaque: true, Via: tt.via})
			c := h.dial(dst)
			data, _ := io.ReadAll(c)
			c.Close()
			if (string(data) == "hello") != tt.works {
				t.Errorf("got %q, works: %v", data, tt.works)
			}
			h.events.wait(t, func(e gateway.Event) bool { return outcome(e) && strings.Contains(e.Error, tt.says) })
			if tt.dialer == nil {
				return
			}
			tt.dialer.mu.Lock()
			defer tt.dialer.mu.Unlock()
			if len(tt.dialer.seen) != tt.dialled {
				t.Errorf("dialled from the run: %v, want %d", tt.dialer.seen, tt.dialled)
			}
		})
	}
}
