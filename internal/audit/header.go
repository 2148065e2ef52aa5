package audit

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
)

// A segment begins with a magic number, the length of the header's JSON and
// its CRC-32C (of length and JSON), both 4 bytes big endian, and the JSON.
const (
	magic        = "VARVELWA"
	headerPrefix = len(magic) + 8
	maxHeader    = 4096
)

// header is the first thing in a segment. It is part of the chain: the first
// record's prev is the header's hash.
type header struct {
	Boot  string    `json:"boot"`
	First uint64    `json:"first"` // the sequence number of the first record
	Node  string    `json:"node"`
	Prev  Hash      `json:"prev"` // the chain's value at the end of the segment before, or zeros
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"` // Since to Until are the times of the segment before
	V     int       `json:"v"`
}

// times returns the range of the segment before.
func (h header) times() times { return times{h.Since, h.Until} }

// encodeHeader returns the segment's first bytes, and their link in the chain.
func encodeHeader(h header) ([]byte, Hash, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, Hash{}, fmt.Errorf("encode segment header: %w", err)
	}
	if len(body) > maxHeader {
		return nil, Hash{}, fmt.Errorf("segment header has %d bytes, and %d are the limit; shorten the node's id", len(body), maxHeader)
	}
	b := append([]byte(magic), binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	b = append(b, 0, 0, 0, 0)
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[len(magic)+4:], checksum(b[len(magic):]))
	return b, headerHash(body), nil
}

// decodeHeader reads the header at the beginning of b and returns it, its hash
// and how many bytes it takes. It returns errShort if b ends too early.
func decodeHeader(b []byte) (header, Hash, int, error) {
	if len(b) < headerPrefix {
		return header{}, Hash{}, 0, errShort
	}
	if found := string(b[:len(magic)]); found != magic {
		return header{}, Hash{}, 0, &frameError{"the segment's header was changed", fmt.Sprintf("%q", magic), fmt.Sprintf("%q", found)}
	}
	n := binary.BigEndian.Uint32(b[len(magic):])
	if n > maxHeader {
		return header{}, Hash{}, 0, &frameError{"the segment's header was changed", fmt.Sprintf("a length up to %d", maxHeader), fmt.Sprint(n)}
	}
	end := headerPrefix + int(n)
	if len(b) < end {
		return header{}, Hash{}, 0, errShort
	}
	if want, have := binary.BigEndian.Uint32(b[len(magic)+4:]), checksum(b[len(magic):end]); want != have {
		return header{}, Hash{}, 0, &frameError{"the segment's header was changed", fmt.Sprintf("checksum %08x", want), fmt.Sprintf("%08x", have)}
	}
	var h header
	if err := decodeStrict(b[headerPrefix:end], &h); err != nil {
		return header{}, Hash{}, 0, &frameError{"the segment's header was changed", "JSON of format version 1", err.Error()}
	}
	if h.V != Version {
		return header{}, Hash{}, 0, &frameError{"the segment has another format version", fmt.Sprint(Version), fmt.Sprint(h.V)}
	}
	return h, headerHash(b[headerPrefix:end]), end, nil
}
