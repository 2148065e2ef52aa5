package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/varvel/varvel/internal/decision"
)

// Open makes this process the one writer of the log in dir, which is made if
// it does not exist. It checks the last segment and the head file, cuts off
// what a crash has left unfinished and records that as an event. Anything else
// that is wrong with them is an error that says what, where, and what to do.
// Close ends the log's goroutines.
func Open(dir string, o Options) (*Log, error) {
	return open(dir, o, realSystem())
}

func open(dir string, o Options, sys system) (*Log, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("make audit log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l := newLog(dir, o, sys, lock)
	r, err := findEnd(dir, o.Boot)
	if err == nil {
		err = l.takeUp(r)
	}
	if err != nil {
		return nil, errors.Join(err, l.abandon())
	}
	l.start()
	if err := l.tellRecovery(r); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// abandon closes what an Open that failed has opened.
func (l *Log) abandon() error {
	if seg := l.writer.seg; seg != nil {
		seg.file.Close()
	}
	return errors.Join(l.spare.close(), l.lock.Close())
}

func newLog(dir string, o Options, sys system, lock *os.File) *Log {
	l := &Log{dir: dir, opts: o, sys: sys, masker: newMasker(), lock: lock, queue: newQueue(), closed: make(chan struct{})}
	l.stats.s.Events = map[Label]uint64{}
	l.spare = &spare{log: l}
	l.commit = &committer{log: l, watch: newWatch(), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	l.writer = &writer{log: l, queue: l.queue, commit: l.commit, watch: newWatch()}
	return l
}

// makeDir makes dir for the daemon alone, durably.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// takeUp continues the log where it ended: in its last segment if that is of
// this node and boot, else in a new one. Everything is durable when it returns.
func (l *Log) takeUp(r recovered) error {
	w := l.writer
	w.seq, w.last, w.chain = r.end.seq, r.end.last, r.end.chain
	l.stats.s.Seq = r.end.seq
	l.commit.written = r.head
	l.commit.todo.end = head{Seq: w.seq, Hash: w.last}
	l.spare.used.Store(r.sealed)
	if err := l.takeSegment(r); err != nil {
		return err
	}
	l.commit.commit(true)
	if err := l.broken(); err != nil {
		return err
	}
	if err := writeHead(l.dir, l.commit.durable); err != nil {
		return err
	}
	l.commit.written = l.commit.durable
	l.spare.prepare()
	return nil
}

func (l *Log) takeSegment(r recovered) error {
	h := r.end.header
	switch same := h.Boot == l.opts.Boot && h.Node == l.opts.Node; {
	case r.fresh:
		return l.writer.roll()
	case same:
		return l.reopen(r)
	case r.end.seq < h.First:
		return l.replaceEmpty(r)
	}
	// What was reserved behind its end goes back to the machine.
	if err := os.Truncate(segmentName(l.dir, h.First), r.end.offset); err != nil {
		return fmt.Errorf("finish audit segment: %w", err)
	}
	l.spare.used.Add(r.end.offset)
	l.writer.before = r.end.times
	return l.writer.roll()
}

// reopen goes on writing to the last segment.
func (l *Log) reopen(r recovered) error {
	name := segmentName(l.dir, r.end.header.First)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open audit segment: %w", err)
	}
	seg := &segment{file: f, name: name, size: r.end.offset, room: r.end.offset, times: r.end.times}
	if err := l.sys.allocate(f, l.opts.SegmentSize); err == nil {
		seg.room = max(l.opts.SegmentSize, seg.size)
	} else if !isFull(err) {
		return errors.Join(explainAllocate(l.dir, l.opts.SegmentSize, err), f.Close())
	}
	l.writer.seg = seg
	l.spare.rolled(nil, seg)
	l.commit.rolled(nil, seg)
	return nil
}

// replaceEmpty begins anew the last segment, in which no record is: its header
// is of another boot or node, and no other file may have its name.
func (l *Log) replaceEmpty(r recovered) error {
	h := r.end.header
	l.writer.chain = h.Prev
	l.writer.before = h.times()
	return l.writer.roll()
}

func (l *Log) tellRecovery(r recovered) error {
	if r.removed == 0 {
		return nil
	}
	l.opts.Log.Warn("audit log recovered", "dir", l.dir, "removed_bytes", r.removed, "last_seq", r.end.seq)
	return l.Append(context.Background(), &Event{
		Kind: KindLoss, Activity: "recovered", Component: "audit",
		Message: fmt.Sprintf("recovered: %d bytes of an unfinished record removed", r.removed),
		Counts:  map[string]uint64{"removed_bytes": uint64(r.removed)},
	}, decision.Durable)
}
