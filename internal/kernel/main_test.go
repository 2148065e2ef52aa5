package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// actorVar is where TestMain has put the program of testdata/act.
const actorVar = "VARVEL_TEST_ACTOR"

func TestMain(m *testing.M) {
	if os.Getenv(mortalVar) != "" {
		os.Exit(beMortal())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "varvel-act-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	actor := filepath.Join(dir, "act")
	build := exec.Command("go", "build", "-o", actor, "./testdata/act")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build testdata/act: %v: %s", err, out)
		return 1
	}
	os.Setenv(actorVar, actor)
	return m.Run()
}

func actor(t testing.TB) string {
	t.Helper()
	path := os.Getenv(actorVar)
	if path == "" {
		t.Fatal("the program of testdata/act was not built")
	}
	return path
}
