package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSaveKeepsOtherFigures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench", "results.json")
	steps := []struct {
		save []Result
		want []Result
	}{
		{[]Result{{Name: "dns", Value: 1}, {Name: "decide", Value: 2}}, []Result{{Name: "dns", Value: 1}, {Name: "decide", Value: 2}}},
		{[]Result{{Name: "dns", Value: 3}}, []Result{{Name: "dns", Value: 3}, {Name: "decide", Value: 2}}},
		{
			[]Result{{Name: "audit_append", Value: 5}, {Name: "connect_udp_10", Value: 4}},
			[]Result{{Name: "connect_udp_10", Value: 4}, {Name: "dns", Value: 3}, {Name: "decide", Value: 2}, {Name: "audit_append", Value: 5}},
		},
		{nil, []Result{{Name: "connect_udp_10", Value: 4}, {Name: "dns", Value: 3}, {Name: "decide", Value: 2}, {Name: "audit_append", Value: 5}}},
	}
	for i, s := range steps {
		if err := Save(path, s.save); err != nil {
			t.Fatal(err)
		}
		got, err := load(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.want, got); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
	if left, _ := filepath.Glob(path + ".new-*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The file is replaced: who reads the old one while it is written sees all of it.
func TestSaveReplacesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := Save(path, []Result{{Name: "dns", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	before, err := old.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(path, []Result{{Name: "dns", Value: 2}}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("the file was written in its place")
	}
	if mode := after.Mode().Perm(); mode != 0o644 {
		t.Errorf("mode %v", mode)
	}
}

func TestSaveRefusesAFileThatItCannotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(path, []byte("[{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Save(path, []Result{{Name: "dns"}}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "[{" {
		t.Errorf("the file has become %q, %v", raw, err)
	}
}
