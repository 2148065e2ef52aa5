package tool

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// SplitPath returns the decoded segments of a percent-encoded path. "/" has
// none. Matching decoded segments makes all spellings of one path equal
// (RFC 3986 section 6.2.2), so that no spelling of a risky path is taken for a
// harmless one.
//
// It refuses what two servers may read differently: paths that do not start
// with a slash, empty segments (also a trailing slash), dot segments, slashes
// and backslashes that are encoded, control characters, bytes that are not
// UTF-8, text that is percent-encoded twice, and ";" parameters, which some
// servers drop.
func SplitPath(path string) ([]string, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, errors.New("the path does not start with a slash")
	}
	if rest == "" {
		return nil, nil
	}
	segments := strings.Split(rest, "/")
	for i, s := range segments {
		decoded, err := decodeSegment(s)
		if err != nil {
			return nil, err
		}
		segments[i] = decoded
	}
	return segments, nil
}

func decodeSegment(s string) (string, error) {
	if i := strings.IndexFunc(s, notInPath); i >= 0 {
		return "", errors.New("the path contains a character that must be percent-encoded")
	}
	decoded, err := unescape(s)
	if err != nil {
		return "", err
	}
	return decoded, checkSegment(decoded)
}

// notInPath reports the characters that no canonical path contains. Other
// unusual ones are harmless, because decoded text is compared.
func notInPath(r rune) bool {
	return r <= ' ' || r >= 0x7f || r == '\\' || r == '?' || r == '#'
}

// unescape undoes the percent-encoding of one segment (RFC 3986 section 2.1).
// Unlike url.PathUnescape it makes no difference between reserved and other
// characters.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if !escapeAt(s, i) {
			return "", errors.New("the path contains a percent sign without two hex digits")
		}
		b.WriteByte(unhex(s[i+1])<<4 | unhex(s[i+2]))
		i += 2
	}
	return b.String(), nil
}

// checkSegment judges decoded text.
func checkSegment(s string) error {
	switch {
	case s == "":
		return errors.New("the path contains an empty segment")
	case s == "." || s == "..":
		return errors.New("the path contains a dot segment")
	case strings.ContainsAny(s, `/\`):
		return errors.New("the path contains an encoded slash or backslash")
	case strings.Contains(s, ";"):
		return errors.New("the path contains a semicolon, which some servers drop")
	case strings.ContainsFunc(s, control):
		return errors.New("the path contains a control character")
	case !utf8.ValidString(s):
		return errors.New("the path is not UTF-8")
	}
	for i := range len(s) {
		if escapeAt(s, i) {
			return errors.New("the path is percent-encoded twice")
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// escapeAt reports whether s[i:] starts with a percent sign and two hex digits.
func escapeAt(s string, i int) bool {
	return s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// unhex is the value of a byte that isHex accepts.
func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}
