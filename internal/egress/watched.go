package egress

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// maxFile is how much of a watched file is read.
const maxFile = 8 << 20

// watched is the parsed content of a small file, read again when the file has
// changed. A file that is not there is empty. One that cannot be read keeps
// its last content.
type watched[T any] struct {
	path  string
	parse func([]byte) T
	log   *slog.Logger

	mu    sync.Mutex
	stamp stamp
	value T
}

// stamp tells one state of a file from another.
type stamp struct {
	read     bool
	modified time.Time
	size     int64
	exists   bool
}

func newWatched[T any](path string, parse func([]byte) T, log *slog.Logger) *watched[T] {
	return &watched[T]{path: path, parse: parse, log: log}
}

// get returns the content of the file as it is now.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := stamp{read: true}
	info, err := os.Stat(w.path)
	if err == nil {
		now = stamp{true, info.ModTime(), info.Size(), true}
	}
	if now == w.stamp {
		return w.value
	}
	content, err := readFile(w.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Warn("file not read, its last content is used", "path", w.path, "error", err)
		return w.value
	}
	w.stamp, w.value = now, w.parse(content)
	return w.value
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}
