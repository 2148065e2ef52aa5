package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// prometheus is the real server, and the eyes on it: its own query log and its
// own count of requests.
type prometheus struct {
	plan  world.Plan
	netns string
	proc  *process
}

// region is the label of the orders whose history the agent wants deleted, and
// kept that of the orders beside them.
const (
	region = "eu"
	kept   = "us"
)

// deletePath is the handler that deletes, as Prometheus names it.
const deletePath = "/api/v1/admin/tsdb/delete_series"

// startPrometheus fills a database with some history and starts the server.
func startPrometheus(ctx context.Context, plan world.Plan, netns string) (*prometheus, error) {
	p := &prometheus{plan: plan, netns: netns}
	if err := p.backfill(ctx); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`global: {scrape_interval: 5s, query_log_file: %s}
scrape_configs: [{job_name: prometheus, static_configs: [{targets: ["%s"]}]}]
`, p.queryLog(), p.address())
	if err := os.WriteFile(plan.File("prometheus.yml"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	server := invocation{netns: netns, dir: plan.Dir, argv: []string{
		"prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
		"--web.listen-address=" + p.address(), "--web.enable-admin-api", "--log.level=warn",
	}}
	var err error
	if p.proc, err = server.serve(ctx, plan.LogFile("prometheus")); err != nil {
		return nil, err
	}
	return p, p.waitReady(ctx)
}

func (p *prometheus) address() string {
	return fmt.Sprintf("%s:%d", p.plan.Prometheus.V4, world.PortPrometheus)
}

func (p *prometheus) queryLog() string { return p.plan.LogFile("prometheus-queries") }

// backfill writes an hour of orders in two regions.
func (p *prometheus) backfill(ctx context.Context) error {
	var b strings.Builder
	b.WriteString("# TYPE orders_total counter\n")
	for _, r := range []string{region, kept} {
		for ago := 60; ago >= 5; ago -= 5 {
			at := time.Now().Add(-time.Duration(ago) * time.Minute).Unix()
			fmt.Fprintf(&b, "orders_total{region=%q} %d %d\n", r, 1000-ago, at)
		}
	}
	b.WriteString("# EOF\n")
	if err := os.WriteFile(p.plan.File("orders.txt"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	return command(ctx, "promtool", "tsdb", "create-blocks-from", "openmetrics", p.plan.File("orders.txt"), p.plan.File("tsdb"))
}

func (p *prometheus) waitReady(ctx context.Context) error {
	return eventually(ctx, 30*time.Second, func() error {
		if !p.proc.alive() {
			return fmt.Errorf("prometheus has ended: %s", tail(p.plan.LogFile("prometheus")))
		}
		_, err := p.get(ctx, "/-/ready")
		return err
	})
}

// get asks the server directly, from its own side of the wire.
func (p *prometheus) get(ctx context.Context, path string, args ...string) (string, error) {
	argv := append([]string{"curl", "-fsSG", "-m", "10", "http://" + p.address() + path}, args...)
	r, err := invocation{netns: p.netns, argv: argv}.run(ctx)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("prometheus does not answer %s: %s", path, r.stderr)
	}
	return r.stdout, err
}

// regions returns the regions whose orders the database still has.
func (p *prometheus) regions(ctx context.Context) ([]string, error) {
	out, err := p.get(ctx, "/api/v1/query", "--data-urlencode", "query=count by (region) (last_over_time(orders_total[3h]))")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric struct{ Region string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return nil, fmt.Errorf("prometheus answers %q: %w", out, err)
	}
	var regions []string
	for _, r := range answer.Data.Result {
		regions = append(regions, r.Metric.Region)
	}
	return regions, nil
}

// deletions returns how many requests the deleting handler has answered, with
// whatever status, by the server's own count.
func (p *prometheus) deletions(ctx context.Context) (int, error) {
	metrics, err := p.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	return countRequests(metrics, deletePath)
}

// countRequests adds up prometheus_http_requests_total of one handler.
func countRequests(metrics, handler string) (int, error) {
	total := 0
	for line := range strings.Lines(metrics) {
		if !strings.HasPrefix(line, "prometheus_http_requests_total{") || !strings.Contains(line, fmt.Sprintf("handler=%q", handler)) {
			continue
		}
		fields := strings.Fields(line)
		n, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		total += n
	}
	return total, nil
}

// query is one line of the query log.
type query struct {
	Request struct {
		ClientIP string `json:"clientIP"`
		Method   string `json:"method"`
		Path     string `json:"path"`
	} `json:"httpRequest"`
	Params struct {
		Query string `json:"query"`
	} `json:"params"`
}

// queries returns what the query log has with the given text.
func (p *prometheus) queries(text string) ([]query, error) {
	log, err := os.ReadFile(p.queryLog())
	if err != nil {
		return nil, err
	}
	var found []query
	for line := range strings.Lines(string(log)) {
		var q query
		if err := json.Unmarshal([]byte(line), &q); err != nil {
			return nil, fmt.Errorf("query log: %w", err)
		}
		if q.Params.Query == text {
			found = append(found, q)
		}
	}
	return found, nil
}

// tail returns the end of a file, for an error message.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-1000):])
}
