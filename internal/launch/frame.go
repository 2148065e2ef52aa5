package launch

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// kind is the first byte of a frame.
type kind byte

// The frames. A frame is a kind, the length of the body as four bytes, most
// significant first, and the body: one JSON value.
const (
	kindStart   kind = 'S' // client to daemon: StartRequest, with three descriptors
	kindSignal  kind = 'K' // client to daemon, daemon to init: signalMessage
	kindWinsize kind = 'W' // client to daemon, daemon to init: Winsize
	kindConfig  kind = 'C' // daemon to init: initConfig
	kindPty     kind = 'T' // init to daemon, daemon to client: the pty's master as descriptor
	kindStarted kind = 'G' // init to daemon, daemon to client: startedMessage
	kindStopped kind = 'Z' // init to daemon, daemon to client: signalMessage
	kindExited  kind = 'X' // init to daemon, daemon to client: Exit
	kindNotice  kind = 'N' // daemon to client: textMessage
	kindError   kind = 'E' // init to daemon, daemon to client: StartError
)

// Limits of frame bodies, in bytes. A start request carries arguments and an
// environment, which Linux bounds at 6 MiB together (execve(2), limits on size
// of arguments and environment); base64 adds a third.
const (
	maxStartBody = 8 << 20
	maxBody      = 64 << 10
	headerSize   = 5
)

// errFrame is wrapped by every error about a frame that is not as it must be.
var errFrame = errors.New("malformed frame")

// frame is one message.
type frame struct {
	kind kind
	body []byte
}

// limit returns how long the body of a frame of kind k may be; 0 if there is no
// such kind.
func (k kind) limit() uint32 {
	switch k {
	case kindStart, kindConfig:
		return maxStartBody
	case kindSignal, kindWinsize, kindPty, kindStarted, kindStopped, kindExited, kindNotice, kindError:
		return maxBody
	default:
		return 0
	}
}

// readFrame reads one frame. It returns io.EOF only between frames.
func readFrame(r io.Reader) (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return frame{}, err
	}
	k, size := kind(header[0]), binary.BigEndian.Uint32(header[1:])
	if k.limit() == 0 || size > k.limit() {
		return frame{}, fmt.Errorf("%w: kind %q with %d bytes", errFrame, header[0], size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return frame{}, fmt.Errorf("%w: %w", errFrame, noEOF(err))
	}
	return frame{k, body}, nil
}

// noEOF keeps the end of the stream inside a frame apart from its end between
// frames.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// encodeFrame returns the bytes of a frame.
func encodeFrame(k kind, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode frame %q: %w", byte(k), err)
	}
	if len(body) > int(k.limit()) {
		return nil, fmt.Errorf("frame %q would have %d bytes, more than %d", byte(k), len(body), k.limit())
	}
	out := make([]byte, headerSize, headerSize+len(body))
	out[0] = byte(k)
	binary.BigEndian.PutUint32(out[1:], uint32(len(body)))
	return append(out, body...), nil
}

// decode reads the body of f into v. It refuses unknown and repeated keys and
// anything after the value.
func (f frame) decode(v any) error {
	if err := checkKeys(f.body); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	dec := json.NewDecoder(bytes.NewReader(f.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}

// checkKeys reports a key that an object of the JSON text has twice, and
// anything that follows the first value. encoding/json accepts both.
func checkKeys(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	return nil
}

// maxDepth is how deep a body may nest; ours nest three levels.
const maxDepth = 8

// checkValue reads one value from dec.
func checkValue(dec *json.Decoder, depth int) error {
	token, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return errors.New("nested too deep")
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			if err := checkKey(dec, seen); err != nil {
				return err
			}
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing delimiter
	return noEOF(err)
}

// checkKey reads one key and adds it to seen. encoding/json matches keys
// without regard to case, so two that differ in case only are one key.
func checkKey(dec *json.Decoder, seen map[string]bool) error {
	token, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	key := string(bytes.ToLower([]byte(fmt.Sprint(token))))
	if seen[key] {
		return fmt.Errorf("key %q is there twice", key)
	}
	seen[key] = true
	return nil
}
