package egress

import "strings"

// Limits of names (RFC 1035, section 2.3.4): 63 bytes a label, and 253 bytes in
// text without the trailing dot.
const (
	maxLabel = 63
	maxHost  = 253
)

// CanonicalHost returns the one way to write a host name: lower case, without
// trailing dot. It reports false for what is not a host name: empty, too long,
// or with bytes other than ASCII letters, digits, hyphen and underscore.
func CanonicalHost(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	if len(name) == 0 || len(name) > maxHost {
		return "", false
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if !isHostByte(name[i]) {
				return "", false
			}
			continue
		}
		if n := i - start; n == 0 || n > maxLabel {
			return "", false
		}
		start = i + 1
	}
	return lowerASCII(name), true
}

func isHostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// lowerASCII is strings.ToLower for names, which are ASCII: DNS compares
// without regard to case in ASCII only (RFC 4343, section 3).
func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}
