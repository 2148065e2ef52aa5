package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestNothingHolds runs the demo with a Varvel that governs nothing. Every step
// has to fail: one that does not would prove nothing when it succeeds.
func TestNothingHolds(t *testing.T) {
	ctx, d := newWorld(t)
	for name, script := range map[string]string{"varveld": "testdata/varveld-nothing.sh", "varvel": "testdata/varvel-nothing.sh"} {
		if err := d.install(script, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.startDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r := &report{out: &out}
	if err := d.walk(ctx, r); err != nil {
		t.Fatal(err)
	}
	if r.steps != len(d.steps()) || strings.Count(out.String(), "✗ expected") != r.failed {
		t.Errorf("%d steps, %d failed:\n%s", r.steps, r.failed, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == "✓" {
			t.Errorf("held with a Varvel that governs nothing: %s", line)
		}
	}
}
