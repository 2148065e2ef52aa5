package policy

import (
	"context"
	"os"
	"regexp"
	"testing"
)

// TestDocumentedExamples loads the Rego of docs/policy.md and runs its tests.
func TestDocumentedExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```rego\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) != 2 {
		t.Fatalf("the page has %d Rego examples; this test knows 2", len(blocks))
	}
	dir := writePolicy(t, "", "example.rego", string(blocks[0][1]))
	writePolicy(t, dir, "example_test.rego", string(blocks[1][1]))
	results, err := RunTests(context.Background(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, r := range results {
		if r.Package != "varvel.custom_test" {
			continue
		}
		ran++
		if !r.Passed() {
			t.Error(r)
		}
	}
	if ran != 2 {
		t.Errorf("%d documented tests ran, want 2", ran)
	}
}
