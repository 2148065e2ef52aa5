package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// cursor reads the events of a log in order, from its files only, so that it
// works in any process and while the log is written to. It checks each
// record's checksum and place, but not the chain; that is what Verify is for.
type cursor struct {
	dir    string
	filter Filter
	before uint64 // ends before this sequence number; 0 is never

	file   *os.File // nil before the first segment
	stream *stream
	header header
	next   uint64 // sequence number of the next record
	prev   Hash   // what the record that was read last continues
	chain  Hash   // what the next record continues
}

func (c *cursor) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// event returns the next event that the filter selects. It returns io.EOF at
// the end of the log; it can be called again when the log has grown.
func (c *cursor) event(ctx context.Context) (Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, err
		}
		f, err := c.frame()
		if err != nil {
			return Event{}, err
		}
		if !c.filter.mayMatch(f.payload) {
			continue
		}
		e, err := decode(f.payload)
		if err != nil {
			return Event{}, &Problem{File: c.file.Name(), Offset: c.stream.offset() - int64(f.size()), Seq: f.seq, What: err.Error()}
		}
		e.Seq, e.Prev, e.Hash, e.Node, e.Boot = f.seq, c.prev, f.hash, c.header.Node, c.header.Boot
		if c.filter.Match(&e) {
			return e, nil
		}
	}
}

// frame returns the next record, from whatever segment it is in.
func (c *cursor) frame() (frame, error) {
	for c.before == 0 || c.next < c.before {
		f, err := c.read()
		if err == nil || !errors.Is(err, io.EOF) {
			return f, err
		}
		moved, err := c.nextSegment()
		if err != nil {
			return frame{}, err
		}
		if !moved {
			break
		}
	}
	return frame{}, io.EOF
}

// read returns the next record of the open segment, and io.EOF if there is no
// whole one.
func (c *cursor) read() (frame, error) {
	if c.file == nil {
		return frame{}, io.EOF
	}
	at := c.stream.offset()
	f, err := c.stream.next()
	var bad *frameError
	switch {
	case errors.Is(err, errShort):
		return frame{}, io.EOF
	case errors.As(err, &bad):
		return frame{}, c.problem(at, bad.what, bad.expected, bad.found)
	case err != nil:
		return frame{}, fmt.Errorf("read audit log: %w", err)
	case f.seq != c.next:
		return frame{}, c.problem(at, "records were removed or their order was changed", fmt.Sprintf("record %d", c.next), fmt.Sprintf("record %d", f.seq))
	}
	c.next++
	c.prev, c.chain = c.chain, f.hash
	return f, nil
}

func (c *cursor) problem(at int64, what, expected, found string) *Problem {
	return &Problem{File: c.file.Name(), Offset: at, Seq: c.next, What: what, Expected: expected, Found: found}
}

// nextSegment opens the next segment that may hold what the filter selects. It
// returns false if there is none.
func (c *cursor) nextSegment() (bool, error) {
	firsts, err := segments(c.dir)
	if err != nil {
		return false, err
	}
	for len(firsts) > 0 && c.file != nil && firsts[0] <= c.header.First {
		firsts = firsts[1:]
	}
	if len(firsts) == 0 {
		return false, nil
	}
	if c.file != nil && firsts[0] > c.next {
		return c.gap(firsts[0])
	}
	for len(firsts) > 1 {
		skip, err := c.skip(firsts[0], firsts[1])
		if err != nil {
			return false, err
		}
		if !skip {
			break
		}
		firsts = firsts[1:]
	}
	return true, c.open(firsts[0])
}

// gap is called when the next segment does not begin with the next record. The
// writer may have gone on since the end of the segment was read, so that there
// is more to read after all. If not, something is missing.
func (c *cursor) gap(first uint64) (bool, error) {
	st, err := c.file.Stat()
	if err != nil {
		return false, fmt.Errorf("read audit log: %w", err)
	}
	if st.Size() > c.stream.offset() && !c.stuck() {
		return true, nil
	}
	return false, c.problem(c.stream.offset(), "a segment is missing, or the end of this one was cut off", fmt.Sprintf("record %d", c.next), fmt.Sprintf("record %d in the next segment", first))
}

// stuck reports whether the rest of the segment is less than a whole frame.
func (c *cursor) stuck() bool {
	again := newStream(c.file)
	again.off = c.stream.offset()
	_, err := again.next()
	return errors.Is(err, io.EOF) || errors.Is(err, errShort)
}

// skip reports whether the filter selects nothing in the segment that begins
// with first. The header of the one behind it knows the times.
func (c *cursor) skip(first, behind uint64) (bool, error) {
	if behind <= c.filter.After+1 {
		return true, nil
	}
	if c.filter.Since.IsZero() && c.filter.Until.IsZero() {
		return false, nil
	}
	h, err := readHeader(c.dir, behind)
	return err == nil && !c.filter.overlaps(h.times()), err
}

func readHeader(dir string, first uint64) (header, error) {
	f, err := os.Open(segmentName(dir, first))
	if err != nil {
		return header{}, fmt.Errorf("read audit log: %w", err)
	}
	defer f.Close()
	h, _, err := headerOf(newStream(f), f.Name(), first)
	return h, err
}

func headerOf(s *stream, name string, first uint64) (header, Hash, error) {
	h, link, err := s.header()
	if err == nil && h.First != first {
		err = fmt.Errorf("it says that it begins with record %d", h.First)
	}
	if err != nil {
		return header{}, Hash{}, &Problem{File: name, Seq: first, What: "the segment's header cannot be read", Expected: "a header", Found: err.Error()}
	}
	return h, link, nil
}

func (c *cursor) open(first uint64) error {
	f, err := os.Open(segmentName(c.dir, first))
	if errors.Is(err, fs.ErrNotExist) {
		return &Problem{File: segmentName(c.dir, first), Seq: first, What: "the segment was removed while it was read"}
	}
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	c.close()
	c.file, c.stream, c.next = f, newStream(f), first
	c.header, c.chain, err = headerOf(c.stream, f.Name(), first)
	return err
}
