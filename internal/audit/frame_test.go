package audit

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func FuzzFrame(f *testing.F) {
	good := appendFrame(nil, frame{seq: 7, hash: Hash{1}, payload: []byte(`{"v":1}`)})
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(good, good...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFrame(b)
		if err != nil {
			var bad *frameError
			if !errors.Is(err, errShort) && !errors.As(err, &bad) {
				t.Errorf("unknown error %v", err)
			}
			return
		}
		if again := appendFrame(nil, got); !bytes.Equal(again, b[:got.size()]) {
			t.Errorf("%x became %x", b[:got.size()], again)
		}
	})
}

func FuzzHeader(f *testing.F) {
	good, _, err := encodeHeader(header{Boot: testBoot, First: 1, Node: "n", V: Version})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:20])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, _, n, err := decodeHeader(b)
		if err == nil && (n > len(b) || h.V != Version) {
			t.Errorf("%d bytes of %d, %+v", n, len(b), h)
		}
	})
}

func FuzzDecode(f *testing.F) {
	b, err := encode(fullEvent())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"kind":"http","v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		if _, err := encode(e); err != nil && len(b) < MaxEvent/8 {
			t.Errorf("%s cannot be encoded again: %v", b, err)
		}
	})
}

// TestStream reads frames through readers that give little at a time.
func TestStream(t *testing.T) {
	var b []byte
	for i := range 20 {
		b = appendFrame(b, frame{seq: uint64(i), payload: bytes.Repeat([]byte{'x'}, 1+i*3000)})
	}
	half := oneByte{bytes.NewReader(b)}
	for name, r := range map[string]io.ReaderAt{"all": bytes.NewReader(b), "little": half} {
		s := newStream(r)
		for i := range 20 {
			f, err := s.next()
			if err != nil || f.seq != uint64(i) || len(f.payload) != 1+i*3000 {
				t.Fatalf("%s: frame %d: %v", name, i, err)
			}
		}
		if _, err := s.next(); !errors.Is(err, io.EOF) || s.offset() != int64(len(b)) {
			t.Errorf("%s: %v at %d", name, err, s.offset())
		}
	}
}

// oneByte returns fewer bytes than asked for, as a growing file does.
type oneByte struct{ r io.ReaderAt }

func (o oneByte) ReadAt(b []byte, off int64) (int, error) {
	n, err := io.ReadFull(iotest.HalfReader(io.NewSectionReader(o.r, off, 1<<40)), b[:(len(b)+1)/2])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// TestStreamGoesOn: at the end of a growing file, next can be called again,
// and what was half a frame may have become something else.
func TestStreamGoesOn(t *testing.T) {
	one := appendFrame(nil, frame{seq: 1, payload: []byte("one")})
	two := appendFrame(nil, frame{seq: 2, payload: []byte("another")})
	file := &growing{b: append([]byte(nil), one[:10]...)}
	s := newStream(file)
	if _, err := s.next(); !errors.Is(err, errShort) {
		t.Fatal(err)
	}
	file.b = two
	if f, err := s.next(); err != nil || f.seq != 2 {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := s.next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	file.b = append(file.b, one...)
	if f, err := s.next(); err != nil || f.seq != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
}

type growing struct{ b []byte }

func (g *growing) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(g.b).ReadAt(b, off)
}
