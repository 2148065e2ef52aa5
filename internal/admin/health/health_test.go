package health

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestCatalogue(t *testing.T) {
	seen := map[Code]bool{}
	for _, e := range Catalogue() {
		switch {
		case seen[e.Code]:
			t.Errorf("%s is there twice", e.Code)
		case e.Severity != Degraded && e.Severity != Failing:
			t.Errorf("%s has no severity", e.Code)
		case !strings.HasSuffix(e.Sentence, ".") || !strings.HasSuffix(e.Remedy, "."):
			t.Errorf("%s: sentence and remedy must be sentences", e.Code)
		}
		seen[e.Code] = true
	}
}

func TestHealth(t *testing.T) {
	var log bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := New(slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	if !h.OK() || len(h.Findings()) != 0 {
		t.Error("a new node is not well")
	}
	if !h.Set(DNSUpstream, "timeout") || !h.OK() {
		t.Error("a degraded node must be reported as a change, and not as failing")
	}
	now = now.Add(time.Minute)
	if h.Set(DNSUpstream, "timeout") {
		t.Error("the same finding again is a change")
	}
	h.Set(ConfigInvalid, "agents.d/x.yaml:3: bad\xff")
	h.Set("made-up", "")
	f := h.Findings()
	if h.OK() || len(f) != 3 || f[0].Code != ConfigInvalid || f[1].Code != "made-up" || f[2].Code != DNSUpstream {
		t.Errorf("findings: %+v", f)
	}
	if f[0].Detail != "agents.d/x.yaml:3: bad" || f[1].Severity != Failing || !f[2].Since.Equal(now.Add(-time.Minute)) {
		t.Errorf("findings: %+v", f)
	}
	if !h.Clear(ConfigInvalid) || h.Clear(ConfigInvalid) {
		t.Error("clear reports the wrong change")
	}
	h.Clear("made-up")
	if !h.OK() {
		t.Error("the node is well again")
	}
	if n := strings.Count(log.String(), "code=dns-upstream"); n != 1 {
		t.Errorf("the same finding was logged %d times", n)
	}
}
