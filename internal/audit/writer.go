package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// writer owns the end of the log: one goroutine gives out sequence numbers,
// links the chain and calls write(2). It never waits for an fsync.
type writer struct {
	log    *Log
	queue  *queue
	commit *committer
	watch  *watch

	seg    *segment
	before times  // of the segment before the first that this process writes
	seq    uint64 // of the last record
	last   Hash   // the last record's
	chain  Hash   // what the next record continues

	buf []byte
}

// run writes until the queue is closed and empty.
func (w *writer) run() {
	limit := min(maxBatch, int(w.log.opts.SegmentSize/2))
	var batch []*request
	for {
		if batch = w.queue.take(batch, limit); len(batch) == 0 {
			return
		}
		w.watch.start()
		w.write(batch)
		w.watch.stop()
		clear(batch)
	}
}

// write takes one batch: every request gets exactly one answer, from here or,
// if it wants durability, from the committer.
func (w *writer) write(batch []*request) {
	batch = w.admit(batch)
	if len(batch) == 0 {
		return
	}
	size := 0
	for _, r := range batch {
		size += frameHeader + len(r.payload)
	}
	if err := w.makeRoom(int64(size)); err != nil {
		answer(batch, err)
		return
	}
	written, err := w.frames(batch)
	if linkErr := w.log.checkLinked(w.seg); linkErr != nil {
		answer(batch, linkErr)
		return
	}
	w.accept(batch[:written])
	answer(batch[written:], err)
}

// admit leaves out who gave up, and answers who may not write now.
func (w *writer) admit(batch []*request) []*request {
	broken, low := w.log.broken(), w.reserveOnly()
	kept := batch[:0]
	for _, r := range batch {
		switch {
		case !r.take():
		case broken != nil:
			r.done <- broken
		case low && r.promise == decision.Durable:
			r.done <- fmt.Errorf("%w: less than %d bytes are reserved in %s, so only reads and denials are recorded; free disk space or raise audit.max_size", errLow, w.log.opts.Reserve, w.log.dir)
		default:
			kept = append(kept, r)
		}
	}
	return kept
}

// reserveOnly reports whether what is reserved on disk is down to the part
// that Durable events may not use. A spare that is only not ready yet does not
// count as missing.
func (w *writer) reserveOnly() bool {
	return w.log.spare.err() != nil &&
		w.seg.room-w.seg.size+w.log.spare.room.Load() < w.log.opts.Reserve
}

// makeRoom begins a new segment if the current one would get too large.
func (w *writer) makeRoom(size int64) error {
	if w.seg.size+size <= w.log.opts.SegmentSize {
		return nil
	}
	err := w.roll()
	if err != nil && isNoSpace(err) && w.seg.size+size <= w.seg.room {
		return nil
	}
	return err
}

func isNoSpace(err error) bool { return errors.Is(err, errFull) || isFull(err) }

// roll makes the spare the current segment.
func (w *writer) roll() error {
	old, before := w.seg, w.before
	if old != nil {
		before = old.times
	}
	h := header{Boot: w.log.opts.Boot, First: w.seq + 1, Node: w.log.opts.Node, Prev: w.chain, Since: before.since, Until: before.until, V: Version}
	err := w.log.spare.use(func(next *segment) error { return w.begin(next, h) })
	if err != nil {
		return err
	}
	w.log.spare.rolled(old, w.seg)
	w.commit.rolled(old, w.seg)
	return nil
}

// begin writes the header of seg, gives it its name and makes it the current
// segment.
func (w *writer) begin(seg *segment, h header) error {
	b, link, err := encodeHeader(h)
	if err != nil {
		return err
	}
	name := segmentName(w.log.dir, h.First)
	_, err = writeAll(w.log.sys, seg.file, b, 0)
	if err == nil {
		err = os.Rename(seg.name, name)
	}
	if err != nil {
		return errors.Join(err, seg.file.Truncate(0))
	}
	seg.name, seg.size = name, int64(len(b))
	w.seg, w.chain = seg, link
	return nil
}

// frames writes the batch and returns how many requests of it are in the file
// in full. What a failed write left behind is taken back; if that fails too,
// the log is broken.
func (w *writer) frames(batch []*request) (int, error) {
	w.buf = w.buf[:0]
	seq, chain := w.seq, w.chain
	for _, r := range batch {
		seq++
		r.seq, r.prev, r.hash = seq, chain, recordHash(seq, chain, r.payload)
		r.node, r.boot = w.log.opts.Node, w.log.opts.Boot
		chain = r.hash
		w.buf = appendFrame(w.buf, frame{seq, r.hash, r.payload})
	}
	n, err := writeAll(w.log.sys, w.seg.file, w.buf, w.seg.size)
	if err == nil {
		w.seg.size += int64(n)
		return len(batch), nil
	}
	return w.takeBack(batch, n, err)
}

func (w *writer) takeBack(batch []*request, n int, err error) (int, error) {
	whole, size := 0, 0
	for whole < len(batch) && size+frameHeader+len(batch[whole].payload) <= n {
		size += frameHeader + len(batch[whole].payload)
		whole++
	}
	w.seg.size += int64(size)
	if truncErr := w.seg.file.Truncate(w.seg.size); truncErr != nil || !isFull(err) {
		return 0, w.log.breakDown("write to "+w.seg.name, errors.Join(err, truncErr))
	}
	w.seg.room = w.seg.size // truncating has freed what was reserved behind
	return whole, fmt.Errorf("%w: write to %s: %w", errFull, w.seg.name, err)
}

// accept moves the end of the log behind the batch.
func (w *writer) accept(batch []*request) {
	if len(batch) == 0 {
		return
	}
	end := batch[len(batch)-1]
	w.seq, w.last, w.chain = end.seq, end.hash, end.hash
	now := time.Now()
	for _, r := range batch {
		w.seg.times.note(r.time)
		w.log.stats.count(r)
		if f := w.log.opts.Observer.Appended; f != nil {
			f(r.kind, r.effect, len(r.payload), now.Sub(r.began))
		}
	}
	w.commit.wrote(w.seg, batch)
	for _, r := range batch {
		if r.promise != decision.Durable {
			r.done <- nil
		}
	}
	w.log.news.tell()
}

func answer(batch []*request, err error) {
	for _, r := range batch {
		r.done <- err
	}
}

// writeAll writes b at offset, however many calls it takes. It returns how
// many bytes are in the file.
func writeAll(sys system, f *os.File, b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := sys.write(f, b[done:], offset+int64(done))
		done += n
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrShortWrite
		}
	}
	return done, nil
}
