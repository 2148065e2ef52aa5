package audit

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// spare keeps the next segment ready, with its disk space reserved.
type spare struct {
	log *Log

	making sync.Mutex // held while the file is made, which may take long
	seg    *segment

	room  atomic.Int64          // bytes that are reserved in seg
	used  atomic.Int64          // bytes of all segments, with what is reserved for the current one
	fault atomic.Pointer[error] // why there is no spare
}

// use hands the file for the next segment to begin, which gives it its final
// name, and makes it if there is none. Nobody can make another one before it
// has that name. If begin fails, the file stays the spare.
func (s *spare) use(begin func(*segment) error) error {
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.make(); err != nil {
		return err
	}
	if err := begin(s.seg); err != nil {
		return fmt.Errorf("begin audit segment: %w", err)
	}
	s.seg = nil
	s.room.Store(0)
	return nil
}

// prepare makes the file ahead of time. A failure means that the disk is full,
// mostly; the committer tries again and again.
func (s *spare) prepare() {
	s.making.Lock()
	defer s.making.Unlock()
	before := s.err()
	switch err := s.make(); {
	case err != nil && before == nil:
		s.log.opts.Log.Error("audit log is on its reserve", "dir", s.log.dir, "error", err)
	case err == nil && before != nil:
		s.log.opts.Log.Info("audit log has its reserve again", "dir", s.log.dir)
	}
}

// err returns why there is no spare, or nil.
func (s *spare) err() error {
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *spare) make() error {
	if s.seg != nil {
		return nil
	}
	seg, err := s.open()
	if err != nil {
		s.fault.Store(&err)
		return err
	}
	s.seg = seg
	s.room.Store(seg.room)
	s.fault.Store(nil)
	return nil
}

func (s *spare) open() (*segment, error) {
	o := s.log.opts
	size := max(o.SegmentSize, o.Reserve)
	if used := s.used.Load(); o.MaxSize > 0 && used+size > o.MaxSize {
		return nil, fmt.Errorf("%w: %d bytes are used or reserved in %s and %d are the maximum; raise audit.max_size, or move old segments away after `varvel audit verify`", errFull, used, s.log.dir, o.MaxSize)
	}
	return openSpare(s.log.dir, size, s.log.sys)
}

// rolled takes note of a new current segment; old is nil for the first one.
func (s *spare) rolled(old, next *segment) {
	s.used.Add(next.room)
	if old != nil {
		s.used.Add(old.size - old.room)
	}
}

// close gives up the file, but leaves its space reserved for the next start.
func (s *spare) close() error {
	s.making.Lock()
	defer s.making.Unlock()
	if s.seg == nil {
		return nil
	}
	return s.seg.file.Close()
}
