package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varvel/varvel/internal/admin/health"
)

// Sources are asked at each scrape. Each may be nil; its metric is then absent.
// They must be quick and safe for concurrent use.
type Sources struct {
	Runs               func() int
	ApprovalsPending   func() int
	Leases             func() int
	GatewayConnections func() int
	AuditSeq           func() uint64            // of the last event
	DNSQuestions       func() map[string]uint64 // by result, since start
	KernelDenials      func() map[string]uint64 // by reason, since start
	EventsLost         func() map[string]uint64 // by class of event, since start
	Health             *health.Health
}

func (s Sources) collectors() []prometheus.Collector {
	var all []prometheus.Collector
	for _, g := range []struct {
		name, help string
		value      func() int
	}{
		{"varvel_runs", "Runs that are alive.", s.Runs},
		{"varvel_approvals_pending", "Approvals that wait for a person.", s.ApprovalsPending},
		{"varvel_leases", "Tokens that are cached and valid.", s.Leases},
		{"varvel_gateway_connections", "Connections that the gateway holds open.", s.GatewayConnections},
	} {
		if g.value != nil {
			all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help},
				func() float64 { return float64(g.value()) }))
		}
	}
	if s.AuditSeq != nil {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "varvel_audit_sequence", Help: "The number of the last event in the audit log."},
			func() float64 { return float64(s.AuditSeq()) }))
	}
	all = append(all, counted("varvel_dns_questions_total", "Questions to the DNS proxy, by result.", "result", s.DNSQuestions)...)
	all = append(all, counted("varvel_events_lost_total", "Events whose details were lost, by class.", "class", s.EventsLost)...)
	if s.Health != nil {
		all = append(all, newHealthCollector(s.Health))
	}
	return all
}

// counts is a counter whose values somebody else keeps.
type counts struct {
	desc   *prometheus.Desc
	values func() map[string]uint64
}

func counted(name, help, by string, values func() map[string]uint64) []prometheus.Collector {
	if values == nil {
		return nil
	}
	return []prometheus.Collector{&counts{prometheus.NewDesc(name, help, []string{by}, nil), values}}
}

// Describe implements prometheus.Collector.
func (c *counts) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *counts) Collect(ch chan<- prometheus.Metric) {
	for value, n := range c.values() {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n), label(value))
	}
}

// healthCollector reports every code of the catalogue: 1 is wrong, 0 is well.
type healthCollector struct {
	desc   *prometheus.Desc
	health *health.Health
}

func newHealthCollector(h *health.Health) *healthCollector {
	desc := prometheus.NewDesc("varvel_health", "Whether something is wrong, by code: 1 if it is.", []string{"code", "severity"}, nil)
	return &healthCollector{desc, h}
}

// Describe implements prometheus.Collector.
func (c *healthCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *healthCollector) Collect(ch chan<- prometheus.Metric) {
	wrong := map[health.Code]health.Severity{}
	for _, f := range c.health.Findings() {
		wrong[f.Code] = f.Severity
	}
	for _, e := range health.Catalogue() {
		value := 0.0
		if _, ok := wrong[e.Code]; ok {
			value = 1
		}
		delete(wrong, e.Code)
		c.send(ch, value, e.Code, e.Severity)
	}
	for code, severity := range wrong { // not in the catalogue
		c.send(ch, 1, code, severity)
	}
}

func (c *healthCollector) send(ch chan<- prometheus.Metric, value float64, code health.Code, severity health.Severity) {
	ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, value, label(string(code)), string(severity))
}

// label makes any text a label value. One that is not UTF-8 would make the
// whole scrape fail.
func label(s string) string { return strings.ToValidUTF8(s, "?") }
