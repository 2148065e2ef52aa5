package audit

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestHostileEventFits: nothing that anybody puts into an event's text makes
// it too large, even if every field is at its limit at once.
func TestHostileEventFits(t *testing.T) {
	for name, char := range map[string]string{"control": "\x01", "quote": `"`, "plain": "x", "wide": "\U0001f600", "separator": "\u2028", "invalid": "\xff"} {
		e := fullEvent()
		huge := strings.Repeat(char, 20000)
		enlarge(reflect.ValueOf(&e).Elem(), huge)
		e.Mode, e.Risk, e.Effect, e.Would, e.Kind, e.Approval.Kind, e.StartedBy, e.Approval.By = "", "", "", "", KindExec, "", nil, nil
		newMasker().bound(&e)
		b, err := encode(e)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Logf("%s: %d bytes", name, len(b))
		if len(b) < MaxEvent/3 {
			t.Errorf("%s: only %d bytes: is the test still about large events?", name, len(b))
		}
	}
}

// enlarge sets every text that is reachable from v to s, and makes lists long.
func enlarge(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.Pointer:
		enlarge(v.Elem(), s)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type() != reflect.TypeFor[time.Time]() && v.Type() != reflect.TypeFor[netip.Addr]() {
				enlarge(v.Field(i), s)
			}
		}
	case reflect.String:
		v.SetString(s)
	case reflect.Slice:
		for v.Len() < 100 {
			v.Set(reflect.Append(v, v.Index(0)))
		}
		for i := range v.Len() {
			enlarge(v.Index(i), s)
		}
	case reflect.Map:
		for i := range 100 {
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint(i, s)), reflect.ValueOf(uint64(maxNumber)))
		}
	}
}

// TestBoundCopies: the caller's event is not changed through its pointers.
func TestBoundCopies(t *testing.T) {
	e, same := fullEvent(), fullEvent()
	huge := strings.Repeat("x", 10000)
	enlarge(reflect.ValueOf(&e).Elem(), huge)
	enlarge(reflect.ValueOf(&same).Elem(), huge)
	kept := e
	newMasker().bound(&kept)
	if diff := cmp.Diff(same, e, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("changed: %.1000s", diff)
	}
}

func TestCommand(t *testing.T) {
	m := newMasker()
	long := make([]string, 100)
	for i := range long {
		long[i] = "x"
	}
	if got := m.command(long); len(got) != maxArgs+1 || got[maxArgs] != "…(+36 arguments)" {
		t.Errorf("%d arguments, the last %q", len(got), got[len(got)-1])
	}
	got := m.command([]string{"tool", "--api-key", "AbCdEf", "--verbose", "--password=hunter22", "-token", "s3cr3t", "file"})
	want := []string{"tool", "--api-key", mask, "--verbose", "--password=" + mask, "-token", mask, "file"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"":          "",
		"12345678":  "12345678",
		"123456789": "12345678…(+1 bytes)",
		"1234567é9": "1234567…(+3 bytes)",
		"\"\"\"\"":  "\"\"\"\"",
		"\"\"\"\"x": "\"\"\"\"…(+1 bytes)",
		"\x01\x01":  "\x01…(+1 bytes)",
		"\xff\xff":  "\xff…(+1 bytes)",
	} {
		if got := shorten(in, 8); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestBoundCounts(t *testing.T) {
	in := map[string]uint64{}
	for i := range maxCounts + 3 {
		in[fmt.Sprintf("%03d", i)] = 2
	}
	out := boundCounts(in)
	if len(out) != maxCounts+1 || out["other"] != 6 || out["000"] != 2 {
		t.Errorf("%d items, other is %d", len(out), out["other"])
	}
	if boundCounts(nil) != nil {
		t.Error("nil became something")
	}
}

func TestMask(t *testing.T) {
	jwt := "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
	for in, want := range map[string]string{
		"Authorization: Bearer abcdefgh12345":         "Authorization: Bearer " + mask,
		"authorization: basic dXNlcjpwYXNz":           "authorization: basic " + mask,
		"see " + jwt + " there":                       "see " + mask + " there",
		"https://user:hunter2@example.org/x":          "https://user:" + mask + "@example.org/x",
		"q=1&access_token=abc.def&z=2":                "q=1&access_token=" + mask + "&z=2",
		`{"client_secret": "abc", "n": 1}`:            `{"client_secret": "` + mask + `", "n": 1}`,
		"AKIAIOSFODNN7EXAMPLE":                        mask,
		"ghp_0123456789abcdefghij":                    mask,
		"hvs.CAESIJ0123456789abcdef":                  mask,
		"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA":  mask,
		"API_KEY=xyz make":                            "API_KEY=" + mask + " make",
		"GET /api/v1/query?query=up":                  "GET /api/v1/query?query=up",
		"The tool billing has no such action.":        "The tool billing has no such action.",
		"run_01JD0000000000000000000000 was refused.": "run_01JD0000000000000000000000 was refused.",
	} {
		if got := newMasker().text(in, 1000); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// FuzzText: the result is bounded, and masking twice changes nothing more.
func FuzzText(f *testing.F) {
	for _, s := range []string{"password=a", "bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.", "://a:b@c", "\xff\xfe", "token:\ntoken:"} {
		f.Add(s)
	}
	m := newMasker()
	f.Fuzz(func(t *testing.T, s string) {
		out := m.text(s, 64)
		if len(out) > 64+len("…(+ bytes)")+20 {
			t.Errorf("%d bytes", len(out))
		}
		if utf8.ValidString(s) && !utf8.ValidString(out) {
			t.Errorf("%q became %q", s, out)
		}
	})
}
