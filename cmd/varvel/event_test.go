package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/decision"
)

// TestEventLine shows that a line says what an action was about, which for a
// deletion is often in its query, and nothing that is not known.
func TestEventLine(t *testing.T) {
	e := &env{tui: newTUI(io.Discard, io.Discard, time.Now)}
	for name, tt := range map[string]struct {
		event   audit.Event
		want    string
		without string
	}{
		"query":    {audit.Event{Kind: audit.KindHTTP, HTTP: &audit.HTTP{Method: "POST", Authority: "a.example", Path: "/x", Query: "match[]=up", Status: 204}}, "POST a.example/x?match[]=up → 204", ""},
		"no query": {audit.Event{Kind: audit.KindHTTP, HTTP: &audit.HTTP{Method: "GET", Authority: "a.example", Path: "/x"}}, "GET a.example/x", "?"},
		"no pid":   {audit.Event{Kind: audit.KindRunStart, Process: &audit.Process{Command: []string{"curl", "x"}, UID: 7}}, "curl x uid=7", "pid="},
		"pid":      {audit.Event{Kind: audit.KindExec, Effect: decision.EffectAllow, Process: &audit.Process{Program: "/bin/true", PID: 3, UID: 7}}, "/bin/true pid=3 uid=7", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := e.eventLine(tt.event)
			if !strings.Contains(got, tt.want) || tt.without != "" && strings.Contains(got, tt.without) {
				t.Errorf("got %q", got)
			}
		})
	}
}
