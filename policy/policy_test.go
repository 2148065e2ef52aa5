package policy_test

import (
	"context"
	"testing"

	"github.com/varvel/varvel/internal/policy"
)

// TestRego runs the Rego tests beside this file, so that go test is the one
// command that runs everything.
func TestRego(t *testing.T) {
	results, err := policy.RunTests(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) < 30 {
		t.Errorf("only %d Rego tests ran; some files were not found", len(results))
	}
	for _, r := range results {
		t.Run(r.Name, func(t *testing.T) {
			if !r.Passed() {
				t.Error(r)
			}
		})
	}
}
