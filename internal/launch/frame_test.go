package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func request() StartRequest {
	return StartRequest{
		Agent: "bot", Argv: []string{"a", "\xff\x01", ""}, Cwd: "/tmp/\xfe", Env: []string{"A=1", "B=\x80"},
		TTY: true, Winsize: Winsize{Rows: 24, Cols: 80}, Umask: 0o22, Quiet: true,
	}
}

func TestRequestRoundTrip(t *testing.T) {
	data, err := encodeFrame(kindStart, request())
	if err != nil {
		t.Fatal(err)
	}
	f, err := readFrame(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var got StartRequest
	if err := f.decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(request(), got); diff != "" {
		t.Error(diff)
	}
}

func TestReadFrame(t *testing.T) {
	tests := []struct {
		name string
		data string
		want error
	}{
		{"end", "", io.EOF},
		{"half a header", "K\x00", io.ErrUnexpectedEOF},
		{"half a body", "K\x00\x00\x00\x05{}", io.ErrUnexpectedEOF},
		{"unknown kind", "?\x00\x00\x00\x00", errFrame},
		{"too long", "K\x00\x01\x00\x01", errFrame},
		{"far too long", "S\xff\xff\xff\xff", errFrame},
		{"good", "K\x00\x00\x00\x02{}", nil},
	}
	for _, tt := range tests {
		if _, err := readFrame(bytes.NewReader([]byte(tt.data))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestDecodeStrict(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"signal":15}`: true, `{}`: true, `{"signal":15,"signal":9}`: false, `{"signal":15,"Signal":9}`: false,
		`{"signal":15,"other":1}`: false, `{"signal":15} {}`: false, `{"signal":"x"}`: false, `{"signal":1e99}`: false,
		``: false, `[[[[[[[[[[]]]]]]]]]]`: false, `{"signal":`: false,
	} {
		var m signalMessage
		if err := (frame{kindSignal, []byte(text)}).decode(&m); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestRequestCheck(t *testing.T) {
	change := func(f func(*StartRequest)) StartRequest { r := request(); f(&r); return r }
	for name, r := range map[string]StartRequest{
		"no agent":      change(func(r *StartRequest) { r.Agent = "" }),
		"no command":    change(func(r *StartRequest) { r.Argv = nil }),
		"empty command": change(func(r *StartRequest) { r.Argv = []string{""} }),
		"relative":      change(func(r *StartRequest) { r.Cwd = "tmp" }),
		"umask":         change(func(r *StartRequest) { r.Umask = 0o1000 }),
		"NUL":           change(func(r *StartRequest) { r.Env = []string{"A=\x00"} }),
	} {
		if r.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	r := request()
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

// FuzzFrame feeds bytes to the codec. What it accepts as a request must come
// out of it as the same request.
func FuzzFrame(f *testing.F) {
	good, err := encodeFrame(kindStart, request())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("K\x00\x00\x00\x0d{\"signal\":15}"))
	f.Add([]byte("W\x00\x00\x00\x14{\"rows\":1,\"cols\":2} "))
	f.Add([]byte("S\x00\x00\x00\x02[]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fr, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		var r StartRequest
		if fr.kind != kindStart || fr.decode(&r) != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var r2 StartRequest
		if err := (frame{kindStart, again}).decode(&r2); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, r2); diff != "" {
			t.Error(diff)
		}
	})
}
