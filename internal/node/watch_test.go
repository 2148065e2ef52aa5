package node

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/approval"
	"github.com/varvel/varvel/internal/egress"
)

func quietNode() *node {
	log := slog.New(slog.DiscardHandler)
	return &node{Options: Options{Log: log}, health: health.New(log, time.Now)}
}

// TestSilentNameServersAreTold asks a name server that is not there, and then
// one name that the hosts file knows.
func TestSilentNameServersAreTold(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("192.0.2.7 known.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := quietNode()
	r, err := egress.NewResolver(egress.ResolverOptions{Upstreams: []string{closed.LocalAddr().String()}, Hosts: hosts, Timeout: 100 * time.Millisecond, Log: n.Log})
	if err != nil {
		t.Fatal(err)
	}
	w := watchedResolver{r, n}
	if _, err := w.Resolve(t.Context(), "unknown.example"); err == nil {
		t.Fatal("a name was resolved without a name server")
	}
	if f := n.health.Findings(); len(f) != 1 || f[0].Code != health.DNSUpstream {
		t.Errorf("findings: %+v", f)
	}
	if _, err := w.Resolve(t.Context(), "known.example"); err != nil {
		t.Fatal(err)
	}
	if f := n.health.Findings(); len(f) != 0 {
		t.Errorf("findings: %+v", f)
	}
}

func TestFinding(t *testing.T) {
	n := quietNode()
	n.finding(health.OutcomeUnknown, idsOf([]approval.Approval{{ID: "apr_1"}, {ID: "apr_2"}}), true)
	if f := n.health.Findings(); len(f) != 1 || f[0].Detail != "apr_1, apr_2" {
		t.Errorf("findings: %+v", f)
	}
	n.finding(health.OutcomeUnknown, idsOf(nil), false)
	n.finding(health.AuditLow, errors.New("full"), true)
	if f := n.health.Findings(); len(f) != 1 || f[0].Code != health.AuditLow {
		t.Errorf("findings: %+v", f)
	}
}
