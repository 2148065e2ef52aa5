package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// end is where the chain is after a segment, or in the middle of one.
type end struct {
	header header
	seq    uint64 // of the last record
	last   Hash   // that record's
	chain  Hash   // what comes next continues this
	times  times  // of the segment's events
	offset int64  // where the next frame begins
	rest   int64  // bytes behind offset that are not a whole frame
}

// walk reads the segment that begins with first and checks every link of its
// chain. before is the end of the segment before, or nil if it is not known.
// visit, if not nil, is called for each record. A *Problem is the first bad
// place; the end is then the last good one. Bytes of an unfinished record at
// the end of the file are not a problem here: the end's rest counts them.
func walk(dir string, first uint64, before *end, visit func(frame, time.Time)) (end, error) {
	w, err := openWalker(dir, first)
	if err != nil {
		return end{}, err
	}
	defer w.file.Close()
	if err := w.header(before); err != nil {
		return w.end, err
	}
	for {
		err := w.record(visit)
		switch {
		case errors.Is(err, io.EOF):
			return w.end, nil
		case errors.Is(err, errShort):
			return w.end, w.measureRest()
		case err != nil:
			return w.end, err
		}
	}
}

type walker struct {
	file   *os.File
	stream *stream
	first  uint64
	end    end
}

func openWalker(dir string, first uint64) (*walker, error) {
	f, err := os.Open(segmentName(dir, first))
	if err != nil {
		return nil, fmt.Errorf("open audit segment: %w", err)
	}
	return &walker{file: f, stream: newStream(f), first: first, end: end{seq: first - 1}}, nil
}

// problem says what is wrong at the place where the walker is.
func (w *walker) problem(what, expected, found string) *Problem {
	return &Problem{File: w.file.Name(), Offset: w.end.offset, Seq: w.end.seq + 1, What: what, Expected: expected, Found: found}
}

func (w *walker) blame(err error) error {
	var bad *frameError
	if errors.As(err, &bad) {
		return w.problem(bad.what, bad.expected, bad.found)
	}
	return err
}

func (w *walker) measureRest() error {
	st, err := w.file.Stat()
	if err != nil {
		return fmt.Errorf("read audit segment: %w", err)
	}
	w.end.rest = st.Size() - w.end.offset
	return nil
}

// header checks the segment's first bytes against the segment before.
func (w *walker) header(before *end) error {
	h, link, err := w.stream.header()
	if errors.Is(err, errShort) || errors.Is(err, io.EOF) {
		if err := w.measureRest(); err != nil {
			return err
		}
		return w.problem("the segment's header is not complete", "a header", fmt.Sprintf("%d bytes", w.end.rest))
	}
	if err != nil {
		return w.blame(err)
	}
	if h.First != w.first {
		return w.problem("the segment's header does not belong to the file's name", fmt.Sprintf("first record %d", w.first), fmt.Sprint(h.First))
	}
	if before != nil {
		if err := w.follows(h, *before); err != nil {
			return err
		}
	}
	w.end.header, w.end.chain, w.end.last, w.end.offset = h, link, h.Prev, w.stream.offset()
	return nil
}

func (w *walker) follows(h header, before end) error {
	switch {
	case h.Prev != before.chain:
		return w.problem("the segment does not continue the one before: one of both was changed or exchanged", before.chain.String(), h.Prev.String())
	case !h.times().equal(before.times):
		return w.problem("the header has wrong times for the segment before", before.times.String(), h.times().String())
	}
	return nil
}

// record checks the next record.
func (w *walker) record(visit func(frame, time.Time)) error {
	f, err := w.stream.next()
	if err != nil {
		return w.blame(err)
	}
	want := w.end.seq + 1
	if f.seq != want {
		return w.wrongPlace(f.seq)
	}
	if hash := recordHash(f.seq, w.end.chain, f.payload); hash != f.hash {
		return w.problem("the chain is broken: this record or the one before was changed", hash.String(), f.hash.String())
	}
	var at struct {
		Time time.Time `json:"time"`
	}
	if err := json.Unmarshal(f.payload, &at); err != nil {
		return w.problem("the record is not an event", "JSON with a time", err.Error())
	}
	w.end.times.note(at.Time)
	w.end.seq, w.end.last, w.end.chain, w.end.offset = f.seq, f.hash, f.hash, w.stream.offset()
	if visit != nil {
		visit(f, at.Time)
	}
	return nil
}

// wrongPlace tells a record that was moved from one that was removed: the
// missing one is further back in the file, or not.
func (w *walker) wrongPlace(found uint64) error {
	want := w.end.seq + 1
	what := "records were removed"
	if found < want {
		what = "the order was changed or a record repeated"
	}
	for found > want {
		f, err := w.stream.next()
		if err != nil {
			break
		}
		if f.seq == want {
			what = "the order was changed"
			break
		}
	}
	return w.problem(what, fmt.Sprintf("record %d", want), fmt.Sprintf("record %d", found))
}
