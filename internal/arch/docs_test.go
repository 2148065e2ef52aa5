package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// TestLinks follows every link of the pages to another file.
func TestLinks(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	link, followed := regexp.MustCompile(`\]\(([^)#]+)`), 0
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			followed++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s leads to %s: %v", page, m[1], err)
			}
		}
	}
	if followed < 10 {
		t.Errorf("only %d links were found", followed)
	}
}

// TestMap looks for every file that the map of the packages points at.
func TestMap(t *testing.T) {
	code, rows := regexp.MustCompile("`([^`]+)`"), 0
	for line := range strings.Lines(read(t, filepath.Join(root, "docs/ARCHITECTURE.md"))) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		rows++
		var dirs []string
		for _, m := range code.FindAllStringSubmatch(cells[1], -1) {
			dirs = append(dirs, m[1])
		}
		for _, m := range code.FindAllStringSubmatch(cells[3], -1) {
			if !inOne(dirs, m[1]) {
				t.Errorf("%s is in none of %v", m[1], dirs)
			}
		}
	}
	if rows < 10 {
		t.Errorf("only %d rows were found", rows)
	}
}

// inOne reports whether a folder has the file. Folders after the first may be
// written without internal/.
func inOne(dirs []string, file string) bool {
	for _, dir := range dirs {
		for _, at := range []string{dir, "internal/" + dir} {
			if _, err := os.Stat(filepath.Join(root, at, file)); err == nil {
				return true
			}
		}
	}
	return false
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
