package audit

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/varvel/varvel/internal/decision"
)

// problemIn verifies dir and returns the bad place, or nil.
func problemIn(t *testing.T, dir string) *Problem {
	t.Helper()
	_, err := Verify(dir)
	if err == nil {
		return nil
	}
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatalf("not a *Problem: %v", err)
	}
	return p
}

// TestBitFlips changes a bit in every byte of a small log. Verify must
// name the record, its file and where it begins.
func TestBitFlips(t *testing.T) {
	dir := fastDir(t)
	fill(t, dir, 3)
	name := segmentName(dir, 1)
	whole := read(t, name)
	for _, p := range places(t, dir, 1) {
		seq := max(p.seq, 1) // the header belongs to the first record
		for at := p.start; at < p.end; at++ {
			bit := at % 8
			changed := append([]byte(nil), whole...)
			changed[at] ^= 1 << bit
			write(t, name, changed)
			bad := problemIn(t, dir)
			if bad == nil || bad.File != name || bad.Seq != seq || bad.Offset != p.start {
				t.Fatalf("byte %d, bit %d, of record %d at %d: %v", at, bit, p.seq, p.start, bad)
			}
		}
	}
}

func TestHeadFlips(t *testing.T) {
	dir := fastDir(t)
	fill(t, dir, 4)
	name := filepath.Join(dir, headName)
	whole := read(t, name)
	for at := range whole {
		for bit := range 8 {
			changed := append([]byte(nil), whole...)
			changed[at] ^= 1 << bit
			write(t, name, changed)
			if problemIn(t, dir) == nil {
				t.Fatalf("byte %d, bit %d: not found, head is %s", at, bit, changed)
			}
		}
	}
}

// forge returns the frame again, with a fitting checksum, after change.
func forge(b []byte, p place, change func(frame []byte) []byte) []byte {
	f := change(append([]byte(nil), b[p.start:p.end]...))
	binary.BigEndian.PutUint32(f, uint32(len(f)-frameHeader))
	binary.BigEndian.PutUint32(f[4:], checksum(f))
	return append(append(append([]byte(nil), b[:p.start]...), f...), b[p.end:]...)
}

func replaceIn(from, to string) func([]byte) []byte {
	return func(b []byte) []byte { return []byte(strings.Replace(string(b), from, to, 1)) }
}

// TestForgeries are changes by somebody who mends the checksums.
func TestForgeries(t *testing.T) {
	from := t.TempDir()
	fill(t, from, 6)
	at := places(t, from, 1)
	whole := read(t, segmentName(from, 1))
	piece := func(i int) string { return string(whole[at[i].start:at[i].end]) }
	rehash := func(seq uint64, prev int) func([]byte) []byte {
		return func(b []byte) []byte {
			b = replaceIn("/v1/items/", "/v1/jtems/")(b)
			hash := recordHash(seq, Hash(whole[at[prev].start+16:]), b[frameHeader:])
			copy(b[16:], hash[:])
			return b
		}
	}
	for _, tt := range []struct {
		name, content string
		seq           uint64
		offset        int64
		what          string
	}{
		{"payload", string(forge(whole, at[3], replaceIn("/v1/items/", "/v1/jtems/"))), 3, at[3].start, "this record or the one before was changed"},
		{"payload, longer", string(forge(whole, at[3], replaceIn("/v1/items/", "/v1/other/items/"))), 3, at[3].start, "was changed"},
		{"payload and hash", string(forge(whole, at[3], rehash(3, 2))), 4, at[4].start, "this record or the one before was changed"},
		{"removed", piece(0) + piece(1) + piece(2) + piece(4) + piece(5) + piece(6), 3, at[3].start, "records were removed"},
		{"exchanged", piece(0) + piece(1) + piece(3) + piece(2) + piece(4) + piece(5) + piece(6), 2, at[2].start, "the order was changed"},
		{"repeated", piece(0) + piece(1) + piece(2) + piece(2) + piece(3) + piece(4) + piece(5) + piece(6), 3, at[3].start, "record repeated"},
		{"end removed", piece(0) + piece(1) + piece(2), 3, at[3].start, "the end of the log was cut off"},
		{"end torn", string(whole[:at[6].end-1]), 6, at[6].start, "the record is cut off"},
		{"last record and hash", string(forge(whole, at[6], rehash(6, 5))), 6, 0, "the log was replaced, or the head file changed"},
		{"everything removed", "", 1, 0, "the segment's header is not complete"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyLog(t, from)
			write(t, segmentName(dir, 1), []byte(tt.content))
			p := problemIn(t, dir)
			if p == nil || p.Seq != tt.seq || p.Offset != tt.offset || !strings.Contains(p.What, tt.what) {
				t.Errorf("found %v, want record %d at %d: %s", p, tt.seq, tt.offset, tt.what)
			}
		})
	}
}

// manySegments makes a log of at least three segments, and returns the first
// sequence number of each.
func manySegments(t *testing.T, dir string) []uint64 {
	t.Helper()
	l := mustOpen(t, dir, testOptions(), realSystem())
	var firsts []uint64
	for i := 0; len(firsts) < 3; i++ {
		mustAppend(t, l, sample(i), decision.Appended)
		var err error
		if firsts, err = segments(dir); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, l)
	return firsts
}

func TestSegmentForgeries(t *testing.T) {
	from := t.TempDir()
	firsts := manySegments(t, from)
	if r, err := Verify(from); err != nil || r.Segments != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	newHeader := func(dir string, i int, change func(*header)) {
		name := segmentName(dir, firsts[i])
		b := read(t, name)
		h, _, n, err := decodeHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		change(&h)
		head, _, err := encodeHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		write(t, name, append(head, b[n:]...))
	}
	for _, tt := range []struct {
		name   string
		forge  func(dir string)
		seq    uint64
		inFile int // index of the segment; -1 is the missing one's name
		what   string
	}{
		{"first missing", func(dir string) { os.Remove(segmentName(dir, firsts[0])) }, 1, 0, "a segment is missing"},
		{"middle missing", func(dir string) { os.Remove(segmentName(dir, firsts[1])) }, firsts[1], 1, "a segment is missing"},
		{"last missing", func(dir string) { os.Remove(segmentName(dir, firsts[2])) }, firsts[2], 1, "the end of the log was cut off"},
		{"all missing", func(dir string) {
			for _, f := range firsts {
				os.Remove(segmentName(dir, f))
			}
		}, 1, 0, "the end of the log was cut off"},
		{"exchanged", func(dir string) { copyFile(t, segmentName(dir, firsts[0]), segmentName(dir, firsts[1])) }, firsts[1], 1, "does not belong to the file's name"},
		{"header: node", func(dir string) { newHeader(dir, 1, func(h *header) { h.Node = "node-2" }) }, firsts[1], 1, "the chain is broken"},
		{"header: prev", func(dir string) { newHeader(dir, 1, func(h *header) { h.Prev[0]++ }) }, firsts[1], 1, "does not continue the one before"},
		{"header: times", func(dir string) { newHeader(dir, 1, func(h *header) { h.Until = h.Since }) }, firsts[1], 1, "wrong times"},
		{"header: version", func(dir string) { newHeader(dir, 1, func(h *header) { h.V = 2 }) }, firsts[1], 1, "another format version"},
		{"sealed segment cut", func(dir string) {
			b := read(t, segmentName(dir, firsts[0]))
			write(t, segmentName(dir, firsts[0]), b[:len(b)-1])
		}, firsts[1] - 1, 0, "cut off"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyLog(t, from)
			tt.forge(dir)
			p := problemIn(t, dir)
			if p == nil || p.Seq != tt.seq || p.File != segmentName(dir, firsts[tt.inFile]) || !strings.Contains(p.What, tt.what) {
				t.Errorf("found %v, want record %d in segment %d: %s", p, tt.seq, tt.inFile, tt.what)
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	write(t, to, read(t, from))
}

func TestVerifyWithoutLog(t *testing.T) {
	if _, err := Verify(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error for a directory that is not there")
	}
	if _, err := Verify(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no audit log") {
		t.Error(err)
	}
	dir := t.TempDir()
	fill(t, dir, 1)
	os.Remove(filepath.Join(dir, headName))
	if p := problemIn(t, dir); p == nil || !strings.Contains(p.What, "head file is missing") {
		t.Error(p)
	}
}

// TestUnfinishedIsNoProblem: what a running log is writing at the moment.
func TestUnfinishedIsNoProblem(t *testing.T) {
	dir := crashed(t, 4, 3)
	b := read(t, segmentName(dir, 1))
	write(t, segmentName(dir, 1), b[:len(b)-5])
	r, err := Verify(dir)
	if err != nil || r.Records != 3 || r.Unfinished == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 3)
	r, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	events := collect(t, dir, Filter{})
	want := Report{
		Segments: 1, Records: 3, Bytes: int64(len(read(t, segmentName(dir, 1)))), FirstSeq: 1, LastSeq: 3,
		FirstHash: events[0].Hash, LastHash: events[2].Hash, Since: events[0].Time, Until: events[2].Time, HeadSeq: 3,
	}
	if diff := cmp.Diff(want, r, cmpopts.IgnoreUnexported(Report{})); diff != "" {
		t.Error(diff)
	}
}
