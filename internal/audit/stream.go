package audit

import (
	"errors"
	"io"
)

// streamBuffer is how much a stream reads at once; more than the largest frame.
const streamBuffer = 256 << 10

// stream reads the frames of one segment, which may still be growing.
type stream struct {
	r    io.ReaderAt
	off  int64 // where in the file buf begins
	buf  []byte
	pos  int // how much of buf is consumed
	room []byte
}

func newStream(r io.ReaderAt) *stream {
	return &stream{r: r, room: make([]byte, streamBuffer)}
}

// offset is where in the file the next frame begins.
func (s *stream) offset() int64 { return s.off + int64(s.pos) }

// header reads the segment's header, which must come first.
func (s *stream) header() (h header, link Hash, err error) {
	err = s.read(func(b []byte) (n int, err error) {
		h, link, n, err = decodeHeader(b)
		return n, err
	})
	return h, link, err
}

// next returns the next frame, whose payload is valid until the next call. It
// returns io.EOF at the end of the file, errShort in the middle of a frame;
// after both, it can be called again when the file has grown.
func (s *stream) next() (f frame, err error) {
	err = s.read(func(b []byte) (n int, err error) {
		if len(b) == 0 {
			return 0, errShort
		}
		f, err = decodeFrame(b)
		return f.size(), err
	})
	return f, err
}

// read calls parse with what is buffered, and with more as long as it returns
// errShort and there is more.
func (s *stream) read(parse func([]byte) (int, error)) error {
	for {
		n, err := parse(s.buf[s.pos:])
		if !errors.Is(err, errShort) {
			if err == nil {
				s.pos += n
			}
			return err
		}
		more, err := s.fill()
		if err != nil {
			return err
		}
		if !more {
			return s.end()
		}
	}
}

// end forgets what is buffered: when the file grows, these bytes may be others.
func (s *stream) end() error {
	rest := len(s.buf) - s.pos
	s.off, s.pos, s.buf = s.offset(), 0, nil
	if rest > 0 {
		return errShort
	}
	return io.EOF
}

func (s *stream) fill() (bool, error) {
	have := copy(s.room, s.buf[s.pos:])
	s.off, s.pos = s.offset(), 0
	n, err := s.r.ReadAt(s.room[have:], s.off+int64(have))
	s.buf = s.room[:have+n]
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return n > 0, nil
}
