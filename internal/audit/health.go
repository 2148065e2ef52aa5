package audit

import (
	"errors"
	"fmt"
)

// Health returns nil if the log can keep every promise. Otherwise the error is
// a sentence that says what does not work and what to do.
func (l *Log) Health() error {
	if err := l.broken(); err != nil {
		return err
	}
	if err := l.stalled(true); err != nil {
		return err
	}
	if err := l.spare.err(); err != nil {
		return fmt.Errorf("the audit log uses its reserve, and refuses what must be durable when it gets low: %w", err)
	}
	l.commit.mu.Lock()
	defer l.commit.mu.Unlock()
	return l.commit.headErr
}

// OutOfSpace reports whether an error of Health comes from a full disk or from
// the maximum size, so that it ends when there is space.
func OutOfSpace(err error) bool { return !errors.Is(err, errBroken) && isNoSpace(err) }

// broken returns the error after which the log refuses everything, or nil.
func (l *Log) broken() error {
	if err := l.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// breakDown refuses everything from now on, and says so once. It returns the
// first error, which callers pass on.
func (l *Log) breakDown(what string, err error) error {
	err = brokenBy(what, err)
	if l.fault.CompareAndSwap(nil, &err) {
		l.opts.Log.Error("audit log broken", "dir", l.dir, "error", err)
	}
	l.commit.signal()
	return l.broken()
}

// stalled reports a disk that takes longer than the deadline: to write, or, if
// durable is set, to sync.
func (l *Log) stalled(durable bool) error {
	switch d := l.opts.Deadline; {
	case l.writer.watch.longer(d):
		return fmt.Errorf("%w: a write in %s has taken more than %s; look at the disk and the kernel's log", errStalled, l.dir, d)
	case durable && l.commit.watch.longer(d):
		return fmt.Errorf("%w: making events durable in %s has taken more than %s; look at the disk and the kernel's log", errStalled, l.dir, d)
	}
	return nil
}

// checkLinked finds out that somebody removed a file that is written to. A
// file without a name is gone with its last descriptor.
func (l *Log) checkLinked(seg *segment) error {
	n, err := l.sys.links(seg.file)
	if err == nil && n > 0 {
		return nil
	}
	if err == nil {
		err = errors.New("somebody removed it while it was in use")
	}
	return l.breakDown(seg.name, err)
}
