package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A record's frame, integers big endian:
//
//	 0  4  n, the length of the payload, 1 to MaxEvent
//	 4  4  CRC-32C of everything else: bytes 0 to 3, then 8 to the end
//	 8  8  sequence number
//	16 32  hash
//	48  n  payload
const frameHeader = 48

// The domain separators of the two kinds of links in the chain.
const (
	recordDomain = "varvel audit record v1\n"
	headerDomain = "varvel audit header v1\n"
)

// errShort means that a frame goes on after the end of the bytes at hand.
var errShort = errors.New("unfinished record")

// frame is one record as it is in the file. Payload points into the buffer
// that was decoded.
type frame struct {
	seq     uint64
	hash    Hash
	payload []byte
}

func (f frame) size() int { return frameHeader + len(f.payload) }

// recordHash is the chain's next value after prev.
func recordHash(seq uint64, prev Hash, payload []byte) Hash {
	h := sha256.New()
	h.Write([]byte(recordDomain))
	h.Write(binary.BigEndian.AppendUint64(nil, seq))
	h.Write(prev[:])
	h.Write(payload)
	return Hash(h.Sum(nil))
}

// headerHash is the chain's first value in a segment. The header contains the
// last value of the segment before.
func headerHash(header []byte) Hash {
	return sha256.Sum256(append([]byte(headerDomain), header...))
}

func appendFrame(b []byte, f frame) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.payload)))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = append(b, f.hash[:]...)
	b = append(b, f.payload...)
	binary.BigEndian.PutUint32(b[start+4:], checksum(b[start:]))
	return b
}

// checksum is the CRC-32C of a whole frame but for the checksum's own bytes.
func checksum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(b[:4], table), table, b[8:])
}

// decodeFrame reads the frame at the beginning of b. It returns errShort if b
// ends before the frame does, and a *frameError if the frame is damaged.
func decodeFrame(b []byte) (frame, error) {
	if len(b) < 4 {
		return frame{}, errShort
	}
	n := binary.BigEndian.Uint32(b)
	if n < 1 || n > MaxEvent {
		return frame{}, &frameError{"the length of the record was changed", fmt.Sprintf("1 to %d", MaxEvent), fmt.Sprint(n)}
	}
	if len(b) < frameHeader+int(n) {
		return frame{}, errShort
	}
	b = b[:frameHeader+int(n)]
	if want, have := binary.BigEndian.Uint32(b[4:]), checksum(b); want != have {
		return frame{}, &frameError{"the record was changed", fmt.Sprintf("checksum %08x", want), fmt.Sprintf("%08x", have)}
	}
	return frame{seq: binary.BigEndian.Uint64(b[8:]), hash: Hash(b[16:48]), payload: b[frameHeader:]}, nil
}

// frameError says what is wrong with a frame, on its own.
type frameError struct{ what, expected, found string }

func (e *frameError) Error() string {
	return fmt.Sprintf("%s: expected %s, found %s", e.what, e.expected, e.found)
}
