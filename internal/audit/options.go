package audit

import (
	"errors"
	"log/slog"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Defaults and limits of Options.
const (
	DefaultSegmentSize   = 64 << 20 // bytes
	DefaultReserve       = 64 << 20 // bytes
	DefaultDeadline      = 5 * time.Second
	DefaultFlushInterval = time.Second

	minSegmentSize = 128 << 10 // a header and one event of the greatest size
)

// Options configure a Log. Zero values take the defaults.
type Options struct {
	Node string // the node's stable id; required
	Boot string // the kernel's boot id (/proc/sys/kernel/random/boot_id); required

	SegmentSize int64 // bytes after which a new segment is begun
	// Reserve is how many bytes of reserved disk space only Appended events
	// may use. When less is left, Durable ones are refused.
	Reserve int64
	// MaxSize bounds the whole log in bytes; 0 is no bound. At the bound the
	// log behaves as on a full disk.
	MaxSize int64

	// Deadline is how long a caller waits for the disk. A caller that gave up
	// does not know whether the event was kept, and must not act.
	Deadline time.Duration
	// FlushInterval is after how long Appended events are made durable if
	// nobody asked for it; negative is never.
	FlushInterval time.Duration

	Log      *slog.Logger // required
	Observer Observer
}

// Observer is told of each operation. Its functions may be nil; they are
// called from the log's goroutines and must not block.
type Observer struct {
	// Appended is called for each event that write(2) has taken. The duration
	// is from the call of Append on.
	Appended func(kind Kind, effect decision.Effect, bytes int, took time.Duration)
	// Synced is called after each fsync with how many callers waited for it.
	Synced func(waiters int, took time.Duration, err error)
}

func (o Options) withDefaults() (Options, error) {
	o.SegmentSize = orDefault(o.SegmentSize, DefaultSegmentSize)
	o.Reserve = orDefault(o.Reserve, DefaultReserve)
	o.Deadline = orDefault(o.Deadline, DefaultDeadline)
	o.FlushInterval = orDefault(o.FlushInterval, DefaultFlushInterval)
	switch {
	case o.Node == "" || o.Boot == "":
		return o, errors.New("audit log needs the node's id and the boot id")
	case o.Log == nil:
		return o, errors.New("audit log needs a logger")
	case o.SegmentSize < minSegmentSize:
		return o, errors.New("audit segment size is below 128 KiB; raise audit.segment_size")
	case o.Reserve < 0 || o.MaxSize < 0 || o.Deadline < 0:
		return o, errors.New("audit reserve, maximum size and deadline must not be negative")
	case o.MaxSize > 0 && o.MaxSize < o.SegmentSize+max(o.SegmentSize, o.Reserve):
		return o, errors.New("audit maximum size is below one segment and the reserve; raise audit.max_size or lower audit.segment_size")
	}
	return o, nil
}

func orDefault[T int64 | time.Duration](v, fallback T) T {
	if v == 0 {
		return fallback
	}
	return v
}
