// Package metrics counts what Varvel does, for Prometheus. Labels have few
// values: kinds, effects and codes of Varvel itself; never names, runs or
// anything that a workload has sent.
package metrics

import (
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// maxReasons is how many different reasons of denials have a series of their
// own. The others share one: an operator's policy may make up reasons.
const maxReasons = 100

// otherReason is the reason of what has no series of its own.
const otherReason = "other"

// Build says what is running.
type Build struct {
	Version, Revision, Go string
}

// BuildOf returns what the go command has stamped into this program. The
// revision is empty if it was built outside a repository.
func BuildOf(version string) Build {
	b := Build{Version: version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}

// Metrics are the counters that other parts move. It is safe for concurrent use.
type Metrics struct {
	decisions    *prometheus.CounterVec
	denials      *denialCounter
	adminRefused *prometheus.CounterVec
	auditEvents  *prometheus.CounterVec
	auditBytes   prometheus.Counter
	auditAppend  prometheus.Histogram
	auditSync    prometheus.Histogram
	auditErrors  prometheus.Counter
	approvals    *prometheus.CounterVec
	approvalWait prometheus.Histogram
	tokens       prometheus.Counter
	configOK     prometheus.Gauge
}

// New registers the metrics at reg and returns them. It is an error to register
// them twice at one registry.
func New(reg prometheus.Registerer, b Build, s Sources) (*Metrics, error) {
	m := newMetrics(s)
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "varvel_build_info", Help: "What is running; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go": b.Go},
	})
	info.Set(1)
	own := []prometheus.Collector{
		info, m.decisions, m.denials, m.adminRefused, m.auditEvents, m.auditBytes, m.auditAppend, m.auditSync,
		m.auditErrors, m.approvals, m.approvalWait, m.tokens, m.configOK,
	}
	for _, c := range append(own, s.collectors()...) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func newMetrics(s Sources) *Metrics {
	return &Metrics{
		decisions:    counters("varvel_decisions_total", "Decisions, by the kind of action and by effect.", "kind", "effect"),
		denials:      newDenialCounter(s.KernelDenials),
		adminRefused: counters("varvel_admin_refusals_total", "Requests to the admin API that were refused, by code.", "code"),
		auditEvents:  counters("varvel_audit_events_total", "Events in the audit log, by kind and effect.", "kind", "effect"),
		auditBytes:   counter("varvel_audit_bytes_total", "Bytes of events that were appended to the audit log."),
		auditAppend: histogram("varvel_audit_append_seconds", "How long an event took to be appended.",
			[]float64{10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 10e-3, 100e-3, 1}),
		auditSync: histogram("varvel_audit_fsync_seconds", "How long the audit log's fsync took.",
			[]float64{100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 100e-3, 500e-3, 2.5}),
		auditErrors: counter("varvel_audit_fsync_errors_total", "Calls of fsync on the audit log that failed."),
		approvals:   counters("varvel_approvals_resolved_total", "Approvals that are no longer pending, by what became of them.", "state"),
		approvalWait: histogram("varvel_approval_wait_seconds", "How long approvals were pending.",
			[]float64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}),
		tokens:   counter("varvel_tokens_minted_total", "Tokens that were minted."),
		configOK: prometheus.NewGauge(prometheus.GaugeOpts{Name: "varvel_config_ok", Help: "1 if the configuration on disk is in force, 0 if it was refused."}),
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// Decision counts a decision, and its reason if it is a denial, or would be one
// if the agent were not in observe mode.
func (m *Metrics) Decision(k decision.Kind, d decision.Decision) {
	m.decisions.WithLabelValues(string(k), string(d.Effect)).Inc()
	if d.Effect == decision.EffectDeny || d.Would != "" {
		m.denials.add(d.Rule(), 1)
	}
}

// Denied counts n denials that are no decisions of the engine, such as those
// of the DNS proxy. Those of the kernel come from Sources.
func (m *Metrics) Denied(reason string, n uint64) { m.denials.add(reason, n) }

// AuditAppended fits audit.Observer.Appended.
func (m *Metrics) AuditAppended(k audit.Kind, f decision.Effect, bytes int, took time.Duration) {
	m.auditEvents.WithLabelValues(string(k), string(f)).Inc()
	m.auditBytes.Add(float64(bytes))
	m.auditAppend.Observe(took.Seconds())
}

// AuditSynced fits audit.Observer.Synced.
func (m *Metrics) AuditSynced(_ int, took time.Duration, err error) {
	m.auditSync.Observe(took.Seconds())
	if err != nil {
		m.auditErrors.Inc()
	}
}

// ApprovalResolved counts an approval that is no longer pending. The state is
// one of those of package approval.
func (m *Metrics) ApprovalResolved(state string, waited time.Duration) {
	m.approvals.WithLabelValues(state).Inc()
	m.approvalWait.Observe(waited.Seconds())
}

// TokenMinted counts a token.
func (m *Metrics) TokenMinted() { m.tokens.Inc() }

// AdminRefused fits admin.Options.Refused.
func (m *Metrics) AdminRefused(code string) { m.adminRefused.WithLabelValues(code).Inc() }

// ConfigOK says whether the configuration on disk is in force.
func (m *Metrics) ConfigOK(ok bool) {
	if ok {
		m.configOK.Set(1)
		return
	}
	m.configOK.Set(0)
}

// denialCounter sums the denials of the engine and of the kernel by reason.
type denialCounter struct {
	desc   *prometheus.Desc
	kernel func() map[string]uint64

	mu    sync.Mutex
	known map[string]uint64
}

func newDenialCounter(kernel func() map[string]uint64) *denialCounter {
	return &denialCounter{
		desc:   prometheus.NewDesc("varvel_denials_total", "Actions that were denied, or let through in observe mode only, by reason.", []string{"reason"}, nil),
		kernel: kernel, known: map[string]uint64{},
	}
}

func (c *denialCounter) add(reason string, n uint64) {
	reason = label(reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[reason]; !ok && len(c.known) >= maxReasons {
		reason = otherReason
	}
	c.known[reason] += n
}

// Describe implements prometheus.Collector.
func (c *denialCounter) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *denialCounter) Collect(ch chan<- prometheus.Metric) {
	for reason, n := range c.sum() {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n), reason)
	}
}

func (c *denialCounter) sum() map[string]uint64 {
	all := map[string]uint64{}
	if c.kernel != nil {
		for reason, n := range c.kernel() {
			all[label(reason)] += n
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for reason, n := range c.known {
		all[reason] += n
	}
	return all
}
