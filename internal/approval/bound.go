package approval

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/varvel/varvel/internal/decision"
)

// Bounds of what is kept, in bytes.
const (
	maxPreview = 8 << 10
	maxField   = 2 << 10
	maxName    = 128
	maxReason  = 1 << 10
)

// bound returns r as it is kept and shown: its long fields cut, and what could
// move a terminal's cursor replaced. The approval is bound to the digest, which
// is of the whole request. It also reports whether something was cut.
func bound(r decision.Request) (decision.Request, bool) {
	cut := false
	limit := func(s string, n int) string {
		short := shorten(s, n)
		cut = cut || short != s
		return clean(short, n)
	}
	r.Preview = limit(r.Preview, maxPreview)
	if r.HTTP != nil {
		h := *r.HTTP
		h.Method = limit(h.Method, maxName)
		h.Authority = limit(h.Authority, maxField)
		h.Path = limit(h.Path, maxField)
		h.Query = limit(h.Query, maxField)
		r.HTTP = &h
	}
	return r, cut
}

// shorten returns the longest beginning of s that has at most n bytes and does
// not end inside a character.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// clean shortens s and replaces what is not text, a line break or a tab.
func clean(s string, n int) string {
	return shorten(strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			return c
		}
		return utf8.RuneError
	}, strings.ToValidUTF8(s, "\uFFFD")), n)
}
