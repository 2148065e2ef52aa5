package config

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file, or writes the file with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

// cases returns the directories below testdata/kind.
func cases(t *testing.T, kind string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join("testdata", kind, "*", "varvel.y*ml"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for i, d := range dirs {
		dirs[i] = filepath.Dir(d)
	}
	return dirs
}

func TestGood(t *testing.T) {
	for _, dir := range cases(t, "good") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			cfg, err := load(dir, "testdata/resolv.conf")
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(cfg, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(dir, "want.json"), string(got)+"\n")
		})
	}
}

func TestBad(t *testing.T) {
	for _, dir := range cases(t, "bad") {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			cfg, err := load(dir, "testdata/resolv.conf")
			if err == nil || cfg != nil {
				t.Fatalf("no error; configuration: %v", cfg)
			}
			golden(t, filepath.Join(dir, "want.txt"), err.Error()+"\n")
			for _, p := range *asProblems(t, err) {
				if p.File == "" || p.Message == "" || p.Hint == "" {
					t.Errorf("incomplete: %+v", p)
				}
			}
		})
	}
}

func asProblems(t *testing.T, err error) *Problems {
	t.Helper()
	var ps *Problems
	if !errors.As(err, &ps) {
		t.Fatalf("not a *Problems: %v", err)
	}
	return ps
}
