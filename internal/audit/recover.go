package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// recovered is how Open finds the log.
type recovered struct {
	end     end
	sealed  int64 // bytes of all segments but the last
	removed int64 // bytes of an unfinished record that were cut off
	fresh   bool  // there is no segment
	head    head  // as it was in the head file

	headHash Hash // of the head's record, if the last segment knows it
}

// findEnd checks the last segment and the head, and cuts off what a crash has
// left unfinished. Everything else that is wrong is an error: a log that was
// changed is evidence, and is not written to.
func findEnd(dir, boot string) (recovered, error) {
	firsts, err := segments(dir)
	if err != nil {
		return recovered{}, err
	}
	h, err := readHead(dir)
	noHead := errors.Is(err, fs.ErrNotExist)
	if err != nil && !noHead {
		return recovered{}, refuse(dir, err)
	}
	r := recovered{head: h}
	firsts, err = r.dropUnborn(dir, firsts)
	if err != nil {
		return r, refuse(dir, err)
	}
	if r.fresh = len(firsts) == 0; !r.fresh {
		if err := r.lastSegment(dir, boot, firsts); err != nil {
			return r, refuse(dir, err)
		}
	}
	if noHead && r.end.seq > 0 {
		return r, refuse(dir, &Problem{File: filepath.Join(dir, headName), What: "the head file is missing"})
	}
	return r, refuse(dir, r.checkHead(dir))
}

// refuse adds what to do.
func refuse(dir string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the audit log is damaged and is not written to: %w. Run `varvel audit verify`; to begin a new log, move %s away and keep it as evidence", err, dir)
}

// dropUnborn removes a last segment that power loss has left without a whole
// header: its name was on the disk before its content. No record is in it.
func (r *recovered) dropUnborn(dir string, firsts []uint64) ([]uint64, error) {
	if len(firsts) == 0 {
		return firsts, nil
	}
	last := firsts[len(firsts)-1]
	name := segmentName(dir, last)
	unborn, size, err := isUnborn(name)
	if err != nil || !unborn || last <= r.head.Seq {
		return firsts, err
	}
	r.removed += size
	return firsts[:len(firsts)-1], os.Remove(name)
}

// isUnborn reports whether the file is too short for a header, or all zeros.
func isUnborn(name string) (bool, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, 0, err
	}
	defer f.Close()
	if _, _, err := newStream(f).header(); errors.Is(err, errShort) || errors.Is(err, io.EOF) {
		st, err := f.Stat()
		return err == nil, st.Size(), err
	}
	zeros, size, err := zerosFrom(f, 0)
	return zeros, size, err
}

// zerosFrom reports whether there is nothing but zeros from offset to the end
// of f, and how many bytes that is.
func zerosFrom(f *os.File, offset int64) (bool, int64, error) {
	r := io.NewSectionReader(f, offset, 1<<62)
	buf, total := make([]byte, 64<<10), int64(0)
	for {
		n, err := r.Read(buf)
		total += int64(n)
		for _, b := range buf[:n] {
			if b != 0 {
				return false, total, nil
			}
		}
		if errors.Is(err, io.EOF) {
			return true, total, nil
		}
		if err != nil {
			return false, total, err
		}
	}
}

func (r *recovered) lastSegment(dir, boot string, firsts []uint64) error {
	for _, first := range firsts[:len(firsts)-1] {
		st, err := os.Stat(segmentName(dir, first))
		if err != nil {
			return err
		}
		r.sealed += st.Size()
	}
	last := firsts[len(firsts)-1]
	var err error
	r.end, err = walk(dir, last, nil, func(f frame, _ time.Time) {
		if f.seq == r.head.Seq {
			r.headHash = f.hash
		}
	})
	if r.head.Seq+1 == last {
		r.headHash = r.end.header.Prev
	}
	if err != nil && !r.tornBy(boot, segmentName(dir, last), err) {
		return err
	}
	if r.end.rest > 0 {
		return r.cut(segmentName(dir, last))
	}
	return nil
}

// tornBy reports whether power loss can explain a bad record: this is another
// boot, the record was never durable as far as the head knows, and no whole
// record is behind it. Everything from it on then counts as unfinished.
func (r *recovered) tornBy(boot, name string, err error) bool {
	var bad *Problem
	if !errors.As(err, &bad) || r.end.offset == 0 || r.end.header.Boot == boot || bad.Seq <= r.head.Seq {
		return false
	}
	b, err := os.ReadFile(name)
	if err != nil || wholeFrame(b[r.end.offset:], bad.Seq) {
		return false
	}
	r.end.rest = int64(len(b)) - r.end.offset
	return true
}

// wholeFrame reports whether there is a record with the sequence number seq or
// a greater one anywhere in b.
func wholeFrame(b []byte, seq uint64) bool {
	for ; len(b) > frameHeader; b = b[1:] {
		// Most places are told apart by these numbers, before the checksum.
		n, at := binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[8:])
		if n > MaxEvent || at < seq || at-seq > uint64(len(b)) {
			continue
		}
		if _, err := decodeFrame(b); err == nil {
			return true
		}
	}
	return false
}

// cut removes the unfinished rest. Had it been durable, the head would know.
func (r *recovered) cut(name string) error {
	if r.end.seq < r.head.Seq {
		return &Problem{File: name, Offset: r.end.offset, Seq: r.end.seq + 1, What: "the end of the log was cut off", Expected: fmt.Sprintf("records up to %d, as the head file says", r.head.Seq), Found: fmt.Sprintf("an unfinished record after %d", r.end.seq)}
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(r.end.offset), unix.Fsync(int(f.Fd())), f.Close()); err != nil {
		return fmt.Errorf("remove an unfinished record from %s: %w", name, err)
	}
	r.removed += r.end.rest
	r.end.rest = 0
	return nil
}

// checkHead compares the head with the end of the log.
func (r *recovered) checkHead(dir string) error {
	name, want := filepath.Join(dir, headName), fmt.Sprintf("record %d, as the head file says", r.head.Seq)
	if r.end.seq < r.head.Seq {
		return &Problem{File: name, Seq: r.end.seq + 1, What: "the end of the log was cut off", Expected: want, Found: fmt.Sprintf("%d as the last one", r.end.seq)}
	}
	if r.headHash == (Hash{}) || r.headHash == r.head.Hash {
		return nil
	}
	return &Problem{File: name, Seq: r.head.Seq, What: "the log was replaced, or the head file changed", Expected: r.head.Hash.String(), Found: r.headHash.String()}
}
