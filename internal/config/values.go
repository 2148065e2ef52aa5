package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxSocketPath is the longest path of a unix socket on Linux, without the
// final NUL (unix(7), sun_path).
const maxSocketPath = 107

// socketNameRoom is what a directory of sockets leaves for their names.
const socketNameRoom = 40

// parseName reads the name of an agent, a tool or an action. Names become
// parts of SPIFFE IDs, of cgroup paths and of metric labels.
func parseName(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	hint := "use up to 63 lower-case letters, digits, hyphens, underscores and dots; begin and end with a letter or digit"
	switch {
	case s == "":
		return "", problem(hint, "the name is empty")
	case len(s) > 63, strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune(allowed, c) }),
		strings.ContainsAny(s[:1]+s[len(s)-1:], "-_."):
		return "", problem(hint, "%q cannot be a name", s)
	}
	return s, nil
}

// parseTrustDomain follows the SPIFFE-ID standard, section 2.1.
func parseTrustDomain(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-_."
	if s == "" || len(s) > 255 || strings.ContainsFunc(s, func(c rune) bool { return !strings.ContainsRune(allowed, c) }) {
		return "", problem("write a name such as example.org, without scheme and path", "%q is not a trust domain", s)
	}
	return s, nil
}

// parsePrincipal reads the name of a local user or group.
func parsePrincipal(s string) (string, error) {
	bad := func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c) || strings.ContainsRune(":/,*", c)
	}
	switch {
	case s == "" || len(s) > 256 || !utf8.ValidString(s) || strings.ContainsFunc(s, bad):
		return "", problem("write the name of a local user or group", "%q is not the name of a user or group", s)
	case strings.Trim(s, "0123456789") == "":
		return "", problem("write the name", "%q is a number, not the name of a user or group", s)
	}
	return s, nil
}

// parseLabel reads a short text for people. The line break at the end of a
// YAML block is not part of it.
func parseLabel(s string) (string, error) {
	s = strings.TrimSuffix(s, "\n")
	switch {
	case strings.TrimSpace(s) == "":
		return "", problem("give it a value or remove the key", "the text is empty")
	case len(s) > 1024:
		return "", problem("shorten it", "the text is longer than 1024 bytes")
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", problem("write it on one line", "the text has a control character or a line break")
	}
	return s, nil
}

// parseAbsolute reads an absolute path in its shortest form.
func parseAbsolute(s string) (string, error) {
	switch {
	case strings.ContainsRune(s, 0):
		return "", problem("write the path without it", "the path contains a NUL")
	case !filepath.IsAbs(s):
		return "", problem("write the whole path, from /", "%q is not an absolute path", s)
	case filepath.Clean(s) != s:
		return "", problem(fmt.Sprintf("write %q", filepath.Clean(s)), "%q is not in its shortest form", s)
	}
	return s, nil
}

func parseSocket(s string) (string, error) {
	if len(s) > maxSocketPath {
		return "", problem("choose a shorter path", "the path of a unix socket has at most %d bytes, this one has %d", maxSocketPath, len(s))
	}
	return parseAbsolute(s)
}

// parseRunDir reads the directory of Varvel's sockets, and leaves room for
// their names.
func parseRunDir(s string) (string, error) {
	if limit := maxSocketPath - socketNameRoom; len(s) > limit {
		return "", problem("choose a shorter path", "the path of a directory for unix sockets has at most %d bytes, this one has %d", limit, len(s))
	}
	return parseAbsolute(s)
}

// oneOf returns a parser of a fixed set of words.
func oneOf[T ~string](words ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		if slices.Contains(words, T(s)) {
			return T(s), nil
		}
		names := make([]string, len(words))
		for i, w := range words {
			names[i] = string(w)
		}
		hint := "write one of them"
		if best, ok := nearest(s, names); ok {
			hint = fmt.Sprintf("did you mean `%s`?", best)
		}
		return "", problem(hint, "%q is not one of %s", s, strings.Join(names, ", "))
	}
}

// durationIn returns a parser of durations between two limits.
func durationIn(low, high time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err != nil {
			return 0, problem("write a number with a unit: 500ms, 20s, 5m, 1h or 30d", "%q is not a duration", s)
		}
		return d, between(s, d, low, high, time.Duration.String)
	}
}

// sizeIn returns a parser of sizes between two limits.
func sizeIn(low, high ByteSize) func(string) (ByteSize, error) {
	return func(s string) (ByteSize, error) {
		n, err := parseSize(s)
		if err != nil {
			return 0, problem("write a whole number with a unit: 512KiB, 64MiB or 10GiB", "%q is not a size: %v", s, err)
		}
		return n, between(s, n, low, high, ByteSize.String)
	}
}

// numberIn returns a parser of whole numbers between two limits.
func numberIn(low, high int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || strconv.Itoa(n) != s {
			return 0, problem("write digits only", "%q is not a whole number", s)
		}
		return n, between(s, n, low, high, strconv.Itoa)
	}
}

func between[T cmp.Ordered](s string, v, low, high T, show func(T) string) error {
	if v < low || v > high {
		return problem(fmt.Sprintf("choose a value from %s to %s", show(low), show(high)), "%s is out of range", s)
	}
	return nil
}
