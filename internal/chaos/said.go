package chaos

import (
	"io"
	"os"
	"strings"
)

// maxComplaints bounds how many lines of the daemons' log are told.
const maxComplaints = 12

// said is how long the daemons' log is, in bytes.
func (s *site) said() int64 {
	info, err := os.Stat(s.daemon.Log)
	if err != nil {
		return 0 // nothing yet
	}
	return info.Size()
}

// complaints are the last lines of the daemons' log since a length that are more
// than information, as slog writes them.
func (s *site) complaints(since int64) []string {
	f, err := os.Open(s.daemon.Log)
	if err != nil {
		return []string{err.Error()}
	}
	defer f.Close()
	raw, err := io.ReadAll(io.NewSectionReader(f, since, 1<<20))
	if err != nil {
		return []string{err.Error()}
	}
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if !strings.Contains(line, "level=INFO") && !strings.Contains(line, "level=DEBUG") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines[max(0, len(lines)-maxComplaints):]
}
