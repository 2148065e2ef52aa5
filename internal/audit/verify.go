package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// Report is what Verify has found, up to the first bad place.
type Report struct {
	Segments  int       `json:"segments"`
	Records   uint64    `json:"records"`
	Bytes     int64     `json:"bytes"`
	FirstSeq  uint64    `json:"first_seq,omitempty"`
	LastSeq   uint64    `json:"last_seq,omitempty"`
	FirstHash Hash      `json:"first_hash,omitzero"`
	LastHash  Hash      `json:"last_hash,omitzero"`
	Since     time.Time `json:"since,omitzero"` // the earliest time of an event
	Until     time.Time `json:"until,omitzero"` // the latest
	HeadSeq   uint64    `json:"head_seq"`       // what the head file vouches for

	// Unfinished is how many bytes of an unfinished record are at the end.
	// A log that is written to, or a crash, explains them: they are behind
	// everything that the head file vouches for.
	Unfinished int64 `json:"unfinished,omitempty"`

	headHash Hash     // of the record HeadSeq
	place    *Problem // the end of the log
}

// Verify reads the whole log in dir and checks every checksum, every link of
// the chain, the order, the segments' headers and the head file. The error is
// a *Problem that names the first bad place, or says why the log could not be
// read. It works while the log is written to.
//
// It proves that nobody changed a part of the log and left the rest alone.
// Whoever can write all files can make another log that is consistent; against
// that helps a hash that is kept elsewhere, to compare with the report.
func Verify(dir string) (Report, error) {
	var r Report
	head, err := readHead(dir)
	noHead := errors.Is(err, fs.ErrNotExist)
	if err != nil && !noHead {
		return r, err
	}
	r.HeadSeq = head.Seq
	firsts, err := segments(dir)
	if err != nil {
		return r, err
	}
	if err := r.segments(dir, firsts); err != nil {
		return r, err
	}
	if noHead {
		return r, missingHead(dir, len(firsts))
	}
	return r, r.compare(dir, head)
}

func missingHead(dir string, segments int) error {
	if segments == 0 {
		return fmt.Errorf("there is no audit log in %s", dir)
	}
	return &Problem{File: filepath.Join(dir, headName), What: "the head file is missing, so nothing says whether the log is complete"}
}

// segments walks through all of them.
func (r *Report) segments(dir string, firsts []uint64) error {
	before := end{}
	for i, first := range firsts {
		if first != before.seq+1 {
			return &Problem{File: segmentName(dir, before.seq+1), Seq: before.seq + 1, What: "a segment is missing", Expected: fmt.Sprintf("record %d", before.seq+1), Found: fmt.Sprintf("a segment that begins with record %d", first)}
		}
		e, err := walk(dir, first, &before, r.record)
		r.Segments++
		r.Bytes += e.offset
		if err != nil {
			return err
		}
		if e.rest > 0 && (i < len(firsts)-1 || e.seq < r.HeadSeq) {
			return &Problem{File: segmentName(dir, first), Offset: e.offset, Seq: e.seq + 1, What: "the record is cut off", Expected: "a whole record", Found: fmt.Sprintf("%d bytes", e.rest)}
		}
		r.Unfinished = e.rest
		r.place = &Problem{File: segmentName(dir, first), Offset: e.offset, Seq: e.seq + 1}
		before = e
	}
	return nil
}

func (r *Report) record(f frame, at time.Time) {
	if r.Records == 0 {
		r.FirstSeq, r.FirstHash = f.seq, f.hash
	}
	r.Records++
	r.LastSeq, r.LastHash = f.seq, f.hash
	if f.seq == r.HeadSeq {
		r.headHash = f.hash
	}
	t := times{r.Since, r.Until}
	t.note(at)
	r.Since, r.Until = t.since, t.until
}

// compare checks that the log reaches as far as its head says.
func (r *Report) compare(dir string, h head) error {
	if r.LastSeq < h.Seq {
		p := Problem{File: segmentName(dir, 1), Seq: 1}
		if r.place != nil {
			p = *r.place
		}
		p.What, p.Expected, p.Found = "the end of the log was cut off", fmt.Sprintf("records up to %d, as the head file says", h.Seq), fmt.Sprintf("%d as the last one", r.LastSeq)
		return &p
	}
	if r.headHash != h.Hash {
		return &Problem{File: filepath.Join(dir, headName), Seq: h.Seq, What: "the log was replaced, or the head file changed", Expected: h.Hash.String(), Found: r.headHash.String()}
	}
	return nil
}
