package config

import (
	"fmt"
	"strings"
	"testing"
)

// A file of the largest size is read, and a list without end is refused once
// for each item too many.
func TestLargeFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, nodeFile, trust)
	var b strings.Builder
	b.WriteString("agent: a\negress:\n")
	n := 0
	for ; b.Len() < maxFileSize-100; n++ {
		fmt.Fprintf(&b, "  - { name: n%d.example.org, ports: [443] }\n", n)
	}
	write(t, dir, "agents.d/a.yaml", b.String())
	cfg, err := Load(dir)
	must(t, err)
	if got := len(cfg.Agents["a"].Egress); got != n {
		t.Errorf("%d rules of %d", got, n)
	}
	b.Reset()
	b.WriteString("agent: b\nenvironment: { pass: [")
	for i := range maxItems + 3 {
		fmt.Fprintf(&b, "V%d,", i)
	}
	write(t, dir, "agents.d/b.yaml", b.String()+"] }\n")
	_, err = Load(dir)
	if err == nil || !strings.Contains(err.Error(), "the list has more than 4096 items") {
		t.Errorf("got %v", err)
	}
}
