package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &out}
	good, bad := new(outcome), new(outcome)
	good.expect(true, "it arrived", "")
	good.note("received: %s", "one\x1b[2J")
	bad.expect(true, "it arrived", "")
	bad.expect(false, "nothing else arrived", "two\nthree")
	r.add("What is allowed works.", good, nil)
	r.add("What is not is refused.", bad, nil)
	r.add("It goes on.", new(outcome), errors.New("no server"))
	r.tally()
	want := `  1 ✓ What is allowed works.
      received: one.[2J
  2 ✗ What is not is refused.
      ✗ expected: nothing else arrived
          two
          three
  3 ✗ It goes on.
      ✗ expected: the step could be carried out
          no server
2 passed, 2 failed
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// TestStepWithoutExpectations shows that a step that has shown nothing is not a success.
func TestStepWithoutExpectations(t *testing.T) {
	var out bytes.Buffer
	r := &report{out: &out}
	r.add("Nothing was looked at.", new(outcome), nil)
	if r.failed != 1 || !strings.Contains(out.String(), "✗") {
		t.Errorf("%d failed: %s", r.failed, out.String())
	}
}

func TestCountRequests(t *testing.T) {
	const metrics = `# TYPE prometheus_http_requests_total counter
prometheus_http_requests_total{code="204",handler="/api/v1/admin/tsdb/delete_series"} 1
prometheus_http_requests_total{code="400",handler="/api/v1/admin/tsdb/delete_series"} 2
prometheus_http_requests_total{code="200",handler="/api/v1/query"} 7
prometheus_http_request_duration_seconds_count{handler="/api/v1/admin/tsdb/delete_series"} 9
`
	n, err := countRequests(metrics, deletePath)
	if n != 3 || err != nil {
		t.Errorf("%d, %v; want 3", n, err)
	}
	if n, err := countRequests("", deletePath); n != 0 || err != nil {
		t.Errorf("%d, %v; want 0", n, err)
	}
}

func TestChangeOneByte(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"head": "no", "0001.log": "before apr_1 after"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, offset, err := changeOneByte(dir, "apr_1")
	if err != nil || filepath.Base(file) != "0001.log" || offset != 9 {
		t.Fatalf("%s %d %v", file, offset, err)
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "before ap"+string('r'^1)+"_1 after" {
		t.Errorf("%q, %v", got, err)
	}
	for _, text := range []string{"", "absent"} {
		if _, _, err := changeOneByte(dir, text); err == nil {
			t.Errorf("%q was found", text)
		}
	}
}
