package launch

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestGlobIsFilepathGlob, apart from the order.
func TestGlobIsFilepathGlob(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ssh-a", "ssh-b", ".ssh-c", "tmux-1", "a[b", "sub/ssh-d"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dirs := map[string][]string{}
	for _, pattern := range []string{"ssh-*", "*", ".*", "tmux-?", "ssh-[ab]", "none-*", "*/ssh-*", "ssh-a", "gone/ssh-*", `a\[b`, "a[b", "ssh-[", "ssh-a/*", "sub/*"} {
		want, wantErr := filepath.Glob(filepath.Join(dir, pattern))
		got, err := glob(filepath.Join(dir, pattern), dirs)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %q, %v; filepath.Glob: %q, %v", pattern, got, err, want, wantErr)
		}
	}
}
