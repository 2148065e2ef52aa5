package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// docsFile is the documentation of the commands, made from their help.
const docsFile = "../../docs/cli.md"

// TestDocs compares docs/cli.md with what the commands say themselves. To write
// it again: go test ./cmd/varvel -run TestDocs -args -write-docs
func TestDocs(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	got := documentation(t)
	if write := flag.Lookup("write-docs"); write != nil && write.Value.String() == "true" {
		if err := os.WriteFile(docsFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./cmd/varvel -run TestDocs -args -write-docs", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/cli.md is not what the help says; write it again with: go test ./cmd/varvel -run TestDocs -args -write-docs\n%s", diff)
	}
}

func documentation(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprint(&b, "# The command line\n\nMade from the help of the commands; do not edit. Nouns read, verbs write.\n\n")
	fmt.Fprintf(&b, "```text\n%s```\n", helpOf(t))
	for _, name := range commandNames(t) {
		fmt.Fprintf(&b, "\n## varvel %s\n\n```text\n%s```\n", name, helpOf(t, name))
	}
	return b.String()
}

func commandNames(t *testing.T) []string {
	t.Helper()
	e := &env{ctx: t.Context(), tui: newTUI(nil, nil, time.Now)}
	p, _, err := newParser(e)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range p.Model.Children {
		names = append(names, c.Name)
	}
	return names
}

func helpOf(t *testing.T, command ...string) string {
	t.Helper()
	var out bytes.Buffer
	e := &env{ctx: t.Context(), tui: newTUI(&out, &out, time.Now)}
	p, _, err := newParser(e)
	if err != nil {
		t.Fatal(err)
	}
	p.Exit = func(int) {}
	// Help is written before what is missing on the command line is noticed.
	_, _ = p.Parse(append(command, "--help"))
	return out.String()
}
