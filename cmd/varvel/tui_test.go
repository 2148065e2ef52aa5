package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestSafe(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "GET /a?b=c", "GET /a?b=c"},
		{"other scripts", "naïve 東京 Ελλάδα", "naïve 東京 Ελλάδα"},
		{"ANSI", "\x1b[31mred\x1b[0m", `\x1b[31mred\x1b[0m`},
		{"C1 as a character", "\u009b31m", `\x9b31m`},
		{"C1 as a byte", "\x9b31m", `\x9b31m`},
		{"line breaks and tabs", "a\nb\r\tc", `a\nb\r\tc`},
		{"vertical tab and bell", "\v\a\x7f", `\x0b\x07\x7f`},
		{"reversed", "exe.\u202etxt", `exe.\u{202e}txt`},
		{"isolates", "\u2066x\u2069", `\u{2066}x\u{2069}`},
		{"zero width", "a\u200bb\ufeff", `a\u{200b}b\u{feff}`},
		{"line separators", "a\u2028b\u2029", `a\u{2028}b\u{2029}`},
		{"other spaces", "a\u00a0b\u3000", `a\xa0b\u{3000}`},
		{"tags", "x\U000e0041", `x\u{e0041}`},
		{"invisible letters", "\u115f\u3164\u2800", `\u{115f}\u{3164}\u{2800}`},
		{"another look", "x\ufe0f", `x\u{fe0f}`},
		{"two marks", "e\u0301\u0323", "e\u0301\u0323"},
		{"too many marks", "e\u0301\u0301\u0301", "e\u0301\u0301" + `\u{301}`},
		{"not UTF-8", "a\xffb\xc0\xaf", `a\xffb\xc0\xaf`},
		{"private use", "\ue000", `\u{e000}`},
	}
	for _, tt := range tests {
		if got := safe(tt.in); got != tt.want {
			t.Errorf("%s: safe(%q) = %q, want %q", tt.name, tt.in, got, tt.want)
		}
	}
}

func FuzzSafe(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b]0;x\x07", "\u202e", "\xff", "e\u0301\u0301\u0301", "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := safe(s)
		if !utf8.ValidString(got) {
			t.Fatalf("safe(%q) = %q is not UTF-8", s, got)
		}
		for _, r := range got {
			if !visible(r) {
				t.Fatalf("safe(%q) = %q has %q", s, got, r)
			}
		}
		if safe(got) != got {
			t.Errorf("safe(%q) is not stable", s)
		}
	})
}

func FuzzSafeJSON(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b]0;x\x07\u009b", "\u202e\U000e0041", "\xff", "e\u0301", "\"\\\n\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := json.Marshal(map[string]string{"s": s})
		if err != nil {
			t.Fatal(err)
		}
		var before, after map[string]string
		escaped := safeJSON(b)
		if err := errors.Join(json.Unmarshal(b, &before), json.Unmarshal(escaped, &after)); err != nil {
			t.Fatal(err)
		}
		if !cmp.Equal(before, after) {
			t.Errorf("%q became %q", before, after)
		}
		for _, r := range string(escaped) {
			if !visible(r) {
				t.Errorf("%q has %q", escaped, r)
			}
		}
	})
}

func TestOutput(t *testing.T) {
	var out, errs bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	u := newTUI(&out, &errs, func() time.Time { return now })
	u.line("a %s", "b\nc")
	u.block("x\n\x1b[2J\ny\n")
	u.fields("k\x1b", "v\n", "empty", "")
	u.table("none", []string{"A", "B"}, [][]string{{"1\t2", "3\n4"}})
	if err := u.jsonLine(map[string]string{"k": "\x7f"}); err != nil {
		t.Error(err)
	}
	u.table("Nothing.", []string{"A"}, nil)
	u.failure(hint(errors.New("bad\n\x1bworse"), "do %s", "this"))
	want := `a b\nc
    | x
    | \x1b[2J
    | y
k\x1b  v\n
A     B
1\t2  3\n4
{"k":"\u007f"}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("Nothing.\nvarvel: bad\nvarvel: \\x1bworse\nhint: do this\n", errs.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWhen(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "now", -5 * time.Second: "5s ago", -3 * time.Minute: "3m ago", 5 * time.Hour: "in 5h", -72 * time.Hour: "3d ago", 90 * time.Second: "in 90s",
	} {
		if got := distance(now.Add(d), now); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	u := newTUI(nil, nil, func() time.Time { return now })
	if got := u.when(time.Time{}); got != "" {
		t.Errorf("no time is %q", got)
	}
	if got := u.when(now.Add(-time.Minute)); !strings.HasSuffix(got, " (60s ago)") {
		t.Errorf("when: %q", got)
	}
}

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"": {}, "90m": now.Add(-90 * time.Minute), "2d": now.Add(-48 * time.Hour),
		"2026-01-02":           time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
		"2026-01-02 03:04":     time.Date(2026, 1, 2, 3, 4, 0, 0, time.Local),
		"2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		if got, err := parseWhen(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"yesterday", "-1h", "99999999d", "2026-13-01"} {
		if got, err := parseWhen(s, now); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
