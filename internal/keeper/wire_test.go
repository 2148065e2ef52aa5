package keeper

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	for _, m := range []message{
		{version: Version, op: opPut, name: "run_01ABC/control"},
		{version: Version, op: opList, status: statusItem, name: strings.Repeat("x", MaxName)},
		{version: Version, op: opQuit},
	} {
		got, err := decode(m.encode())
		if err != nil || got != m {
			t.Errorf("%+v came back as %+v, %v", m, got, err)
		}
	}
}

func TestMessagesThatCannotBe(t *testing.T) {
	good := message{version: Version, op: opPut, name: "a"}.encode()
	alter := func(i int, b byte) []byte {
		raw := bytes.Clone(good)
		raw[i] = b
		return raw
	}
	for name, raw := range map[string][]byte{
		"empty": nil, "short": good[:messageSize-1], "long": append(bytes.Clone(good), 0),
		"magic": alter(0, 'X'), "after the name": alter(messageSize-1, 'x'), "control character": alter(headerSize, 7),
	} {
		if _, err := decode(raw); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := decode(good); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(message{version: Version, op: opPut, name: "a"}.encode())
	f.Add(message{version: Version + 1, op: opQuit}.encode()[:headerSize])
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decode(raw)
		if err != nil || m.version != Version {
			return
		}
		if !bytes.Equal(m.encode(), raw) {
			t.Errorf("%x means %+v, which is %x", raw, m, m.encode())
		}
	})
}
