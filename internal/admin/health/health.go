// Package health keeps what is wrong with this node at the moment. What can be
// wrong is in one catalogue, with a sentence and a remedy for each code; status,
// metrics, /healthz and the log all read it.
package health

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxDetail bounds the detail of a finding, in bytes.
const maxDetail = 1024

// Finding is one thing that is wrong now.
type Finding struct {
	Code     Code      `json:"code"`
	Severity Severity  `json:"severity"`
	Sentence string    `json:"sentence"`
	Remedy   string    `json:"remedy"`
	Detail   string    `json:"detail,omitempty"` // of this case; no secrets
	Since    time.Time `json:"since"`
}

// Health holds the findings. It is safe for concurrent use.
type Health struct {
	catalogue []Entry
	log       *slog.Logger
	now       func() time.Time

	mu       sync.Mutex // guards findings
	findings map[Code]Finding
}

// New returns a Health without findings.
func New(log *slog.Logger, now func() time.Time) *Health {
	return &Health{catalogue: Catalogue(), log: log, now: now, findings: map[Code]Finding{}}
}

// Set records that code is wrong, and why in this case. A code that is not in
// the catalogue is recorded as failing: what is unknown is not well. It reports
// whether the code was well before.
func (h *Health) Set(code Code, detail string) (changed bool) {
	detail = strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "")
	h.mu.Lock()
	old, was := h.findings[code]
	f := h.finding(code, detail)
	if was {
		f.Since = old.Since
	}
	h.findings[code] = f
	h.mu.Unlock()
	if !was || old.Detail != detail {
		h.log.Warn("health finding", "code", string(code), "severity", string(f.Severity),
			"sentence", f.Sentence, "detail", detail, "remedy", f.Remedy)
	}
	return !was
}

func (h *Health) finding(code Code, detail string) Finding {
	f := Finding{Code: code, Severity: Failing, Sentence: "Something is wrong that the catalogue does not know.",
		Remedy: "See the daemon's log.", Detail: detail, Since: h.now().UTC()}
	if i := slices.IndexFunc(h.catalogue, func(e Entry) bool { return e.Code == code }); i >= 0 {
		e := h.catalogue[i]
		f.Severity, f.Sentence, f.Remedy = e.Severity, e.Sentence, e.Remedy
	}
	return f
}

// Clear records that code is well. It reports whether it was wrong before.
func (h *Health) Clear(code Code) (changed bool) {
	h.mu.Lock()
	_, was := h.findings[code]
	delete(h.findings, code)
	h.mu.Unlock()
	if was {
		h.log.Info("health finding cleared", "code", string(code))
	}
	return was
}

// Findings returns what is wrong now: failing before degraded, then by code.
func (h *Health) Findings() []Finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Finding, 0, len(h.findings))
	for _, f := range h.findings {
		all = append(all, f)
	}
	slices.SortFunc(all, compareFindings)
	return all
}

func compareFindings(a, b Finding) int {
	switch {
	case a.Severity == b.Severity && a.Code < b.Code, a.Severity == Failing && b.Severity != Failing:
		return -1
	default:
		return 1
	}
}

// OK reports whether nothing is failing. Degraded findings do not count.
func (h *Health) OK() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.findings {
		if f.Severity == Failing {
			return false
		}
	}
	return true
}
