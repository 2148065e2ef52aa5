package keeper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is that of the messages. It changes when they do.
const Version = 1

// Sizes of a message: four bytes that say what it is, the version (two bytes,
// least significant first), the operation, the status, and the name, filled up
// with zero bytes.
const (
	magic       = "VKPR"
	headerSize  = 8
	MaxName     = 64 // bytes of a name
	messageSize = headerSize + MaxName
)

// MaxDescriptors is how many descriptors one name may have.
const MaxDescriptors = 4

type op uint8

// The operations. An answer has that of its question.
const (
	opPut  op = 1 // hold the descriptors that come along, in place of what the name had
	opDrop op = 2 // close what the name has
	opList op = 3 // answer with a message for each name, with its descriptors, then one with statusOK
	opQuit op = 4 // close everything and end; the same in all versions
)

type status uint8

// The statuses of answers.
const (
	statusOK        status = 0
	statusItem      status = 1 // one name of a list
	statusVersion   status = 2 // the answer's version is the keeper's
	statusMalformed status = 3
	statusFull      status = 4
	statusRefused   status = 5 // the peer is not the daemon
)

// Errors of a conversation with a keeper. They are returned wrapped.
var (
	ErrNone    = errors.New("no keeper answers")
	ErrVersion = errors.New("the keeper speaks another version")
	ErrFull    = errors.New("the keeper holds as much as it may")
	ErrRefused = errors.New("the keeper takes this process for somebody else than the daemon")

	errMalformed = errors.New("malformed message")
)

// message is one message, without its descriptors.
type message struct {
	version uint16
	op      op
	status  status
	name    string
}

// encode returns the bytes of m. The name must be valid.
func (m message) encode() []byte {
	out := make([]byte, messageSize)
	copy(out, magic)
	binary.LittleEndian.PutUint16(out[4:], m.version)
	out[6], out[7] = byte(m.op), byte(m.status)
	copy(out[headerSize:], m.name)
	return out
}

// decode reads a message. Of one of another version only the header is read.
func decode(raw []byte) (message, error) {
	if len(raw) < headerSize || string(raw[:4]) != magic {
		return message{}, fmt.Errorf("%w: %d bytes", errMalformed, len(raw))
	}
	m := message{version: binary.LittleEndian.Uint16(raw[4:]), op: op(raw[6]), status: status(raw[7])}
	if m.version != Version {
		return m, nil
	}
	if len(raw) != messageSize {
		return message{}, fmt.Errorf("%w: %d bytes", errMalformed, len(raw))
	}
	name, rest, _ := bytes.Cut(raw[headerSize:], []byte{0})
	m.name = string(name)
	if len(bytes.Trim(rest, "\x00")) > 0 {
		return message{}, fmt.Errorf("%w: something follows the name", errMalformed)
	}
	if m.name != "" && !validName(m.name) {
		return message{}, fmt.Errorf("%w: a name with other characters than letters, digits and _-./", errMalformed)
	}
	return m, nil
}

// validName reports whether a name may be kept.
func validName(name string) bool {
	if name == "" || len(name) > MaxName {
		return false
	}
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && !bytes.ContainsRune([]byte("_-./"), rune(c)) {
			return false
		}
	}
	return true
}

// problem is the error that a status means.
func (m message) problem() error {
	switch m.status {
	case statusOK:
		return nil
	case statusVersion:
		return fmt.Errorf("%w: %d, and this daemon %d", ErrVersion, m.version, Version)
	case statusFull:
		return ErrFull
	case statusRefused:
		return ErrRefused
	}
	return fmt.Errorf("%w: the keeper answers with status %d", errMalformed, m.status)
}
