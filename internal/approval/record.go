package approval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// recordVersion is the version of the journal's records.
const recordVersion = 1

// A record is a line: the CRC-32C (RFC 3720, section 12.1) of the JSON as eight
// hex digits, a space, the JSON, a line feed.
type line struct {
	Version  int      `json:"v"`
	Approval Approval `json:"approval"`
}

func record(a Approval) ([]byte, error) {
	body, err := json.Marshal(line{recordVersion, a})
	if err != nil {
		return nil, fmt.Errorf("encode approval %s: %w", a.ID, err)
	}
	return appendRecord(nil, body), nil
}

func appendRecord(b, body []byte) []byte {
	return fmt.Appendf(b, "%08x %s\n", checksum(body), body)
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// contents is what a journal holds.
type contents struct {
	approvals []Approval // the newest of each id, in the order of first appearance
	// damaged says that the last record was whole in length and yet wrong, so
	// that it may have been in force before it was damaged.
	damaged bool
}

// errChecksum says that a record's bytes are not those that were written.
var errChecksum = errors.New("checksum is wrong")

// parse reads a journal. A last record without its line feed was being written
// when the machine stopped; it was never in force, and is left out. A wrong
// record before the last one is an error.
func parse(data []byte) (contents, error) {
	var c contents
	index := map[string]int{}
	for offset := 0; offset < len(data); {
		length := bytes.IndexByte(data[offset:], '\n')
		if length < 0 {
			break
		}
		a, err := parseLine(data[offset : offset+length])
		next := offset + length + 1
		switch {
		case errors.Is(err, errChecksum) && next == len(data):
			c.damaged = true
			return c, nil
		case err != nil:
			return contents{}, fmt.Errorf("record at byte %d: %w", offset, err)
		}
		if i, ok := index[a.ID]; ok {
			c.approvals[i] = a
		} else {
			index[a.ID] = len(c.approvals)
			c.approvals = append(c.approvals, a)
		}
		offset = next
	}
	return c, nil
}

func parseLine(b []byte) (Approval, error) {
	if len(b) < 10 || b[8] != ' ' {
		return Approval{}, fmt.Errorf("%w: it is too short", errChecksum)
	}
	want, err := strconv.ParseUint(string(b[:8]), 16, 32)
	if err != nil || uint32(want) != checksum(b[9:]) {
		return Approval{}, errChecksum
	}
	var l line
	d := json.NewDecoder(bytes.NewReader(b[9:]))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return Approval{}, fmt.Errorf("not understood: %w", err)
	}
	switch {
	case l.Version != recordVersion:
		return Approval{}, fmt.Errorf("version %d is not known to this daemon, which writes %d", l.Version, recordVersion)
	case l.Approval.ID == "" || !l.Approval.State.known():
		return Approval{}, errors.New("it has no id, or a state that is not known")
	case d.More():
		return Approval{}, errors.New("it is followed by something")
	}
	return l.Approval, nil
}
