package gateway

import (
	"errors"
	"fmt"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// canonicalPath returns the one form of a request's path that is matched,
// judged, approved and sent: unreserved characters are not escaped, all others
// are, in upper-case hex (RFC 3986 section 6.2.2). A path that servers read in
// different ways is an error: dot segments, also with a path parameter;
// escaped slashes, backslashes and control characters, also escaped twice;
// empty segments; raw bytes that no URL has.
//
// The result is a fixed point: canonicalPath of it is the same.
func canonicalPath(raw string) (string, error) {
	if !strings.HasPrefix(raw, "/") {
		return "", errors.New("the path does not begin with a slash")
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			decoded, err := unescape(raw[i:])
			if err != nil {
				return "", err
			}
			writeEscaped(&b, decoded)
			i += 2
		case c == '/' || pathChar(c):
			b.WriteByte(c)
		case c <= ' ' || c >= 0x7f || c == '\\' || c == '?' || c == '#':
			return "", fmt.Errorf("the path holds the raw byte 0x%02x", c)
		default: // such as | or {: some clients send them raw
			writeEscaped(&b, c)
		}
	}
	return b.String(), checkPath(b.String())
}

// unescape reads the escape at the start of s.
func unescape(s string) (byte, error) {
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return 0, errors.New("the path holds a percent sign that escapes nothing")
	}
	c := unhex(s[1])<<4 | unhex(s[2])
	if c < ' ' || c == 0x7f || c == '/' || c == '\\' {
		return 0, fmt.Errorf("the path holds an escaped 0x%02x", c)
	}
	return c, nil
}

// writeEscaped writes c, escaped unless it is unreserved. Escaped reserved
// characters stay escaped, because the two forms may differ in meaning.
func writeEscaped(b *strings.Builder, c byte) {
	if unreserved(c) {
		b.WriteByte(c)
		return
	}
	b.WriteByte('%')
	b.WriteByte(hexDigits[c>>4])
	b.WriteByte(hexDigits[c&15])
}

// checkPath looks at a path whose characters are canonical.
func checkPath(p string) error {
	if escapedTwice(p) {
		return errors.New("the path holds a character that is escaped twice")
	}
	segments := strings.Split(p[1:], "/")
	for i, s := range segments {
		bare, _, _ := strings.Cut(s, ";") // "..;x" is ".." to some servers
		switch {
		case bare == "." || bare == "..":
			return errors.New("the path holds a dot segment")
		case s == "" && i != len(segments)-1:
			return errors.New("the path holds an empty segment")
		}
	}
	return nil
}

// escapedTwice finds an escaped percent sign that begins an escape of a
// character which may not be escaped: a server that decodes twice would see it.
func escapedTwice(p string) bool {
	for {
		i := strings.Index(p, "%25")
		if i < 0 {
			return false
		}
		p = p[i+3:]
		if len(p) < 2 || !isHex(p[0]) || !isHex(p[1]) {
			continue
		}
		switch c := unhex(p[0])<<4 | unhex(p[1]); {
		case c < ' ' || c == 0x7f, c == '/', c == '\\', c == '.', c == '%', c == ';':
			return true
		}
	}
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// pathChar is pchar of RFC 3986 section 3.3 without escapes.
func pathChar(c byte) bool { return unreserved(c) || strings.IndexByte("!$&'()*+,;=:@", c) >= 0 }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}
