package tool

import (
	"fmt"
	"strings"
)

// Template is a path pattern in canonical form: a slash before each segment,
// literal segments decoded, "*" for exactly one segment, and "**" as the last
// segment for any number of segments, also none. ParseTemplate makes it.
type Template string

// ParseTemplate reads a path template as an operator writes it. Literal
// segments may be percent-encoded or plain text. The error is a *ValueError.
func ParseTemplate(s string) (Template, error) {
	rest, ok := strings.CutPrefix(s, "/")
	switch {
	case !ok:
		return "", invalid(fmt.Sprintf("write %q", "/"+s), "path %q does not start with a slash", s)
	case rest == "":
		return "/", nil
	case strings.HasSuffix(rest, "/"):
		return "", invalid(trailingSlashHint(s), "path %q ends with a slash", s)
	}
	parts := strings.Split(rest, "/")
	for i, part := range parts {
		literal, err := parseSegment(s, part, i == len(parts)-1)
		if err != nil {
			return "", err
		}
		parts[i] = literal
	}
	return Template("/" + strings.Join(parts, "/")), nil
}

func trailingSlashHint(s string) string {
	trimmed := "/" + strings.Trim(s, "/")
	return fmt.Sprintf("write %q; a request whose path ends with a slash never matches", trimmed)
}

// parseSegment returns the canonical form of one segment of template s.
func parseSegment(s, part string, last bool) (string, error) {
	switch {
	case part == "*" || part == "**" && last:
		return part, nil
	case part == "**":
		return "", invalid("use `*` for one segment in the middle; only the last segment can be `**`", "path %q has `**` before its last segment", s)
	case strings.Contains(part, "*"):
		return "", invalid("a wildcard is a whole segment: `*` for one, `**` at the end for the rest", "path %q has a wildcard inside a segment", s)
	case strings.HasPrefix(part, "{") || strings.HasPrefix(part, ":"):
		return "", invalid("write `*` for one segment", "path %q has a named parameter", s)
	case strings.ContainsAny(part, "?#"):
		return "", invalid("leave out the query and the fragment", "path %q is more than a path", s)
	}
	literal, err := unescape(part)
	if err == nil {
		err = checkSegment(literal)
	}
	if err == nil && strings.Contains(literal, "*") {
		return "", invalid("there is no way to write a literal asterisk; use `*` for the segment", "path %q has an encoded asterisk", s)
	}
	if err != nil {
		return "", invalid("no request with such a path ever matches; write it in another way", "path %q cannot match: %v", s, err)
	}
	return literal, nil
}

// next cuts the first segment off a canonical template.
func (t Template) next() (segment string, rest Template) {
	s := strings.TrimPrefix(string(t), "/")
	i := strings.IndexByte(s, '/')
	if i < 0 {
		return s, ""
	}
	return s[:i], Template(s[i:])
}

// matches reports whether the decoded segments of a path fit the template.
func (t Template) matches(segments []string) bool {
	if t == "/" {
		return len(segments) == 0
	}
	for t != "" {
		want, rest := t.next()
		if want == "**" && rest == "" {
			return true
		}
		if len(segments) == 0 || want != "*" && want != segments[0] {
			return false
		}
		t, segments = rest, segments[1:]
	}
	return len(segments) == 0
}

// Matches reports whether a percent-encoded path fits the template. A path
// that SplitPath refuses never does.
func (t Template) Matches(path string) bool {
	segments, err := SplitPath(path)
	return err == nil && t.matches(segments)
}

// moreSpecific reports whether t has the narrower segment at the first place
// where it differs in kind from o.
func (t Template) moreSpecific(o Template) bool {
	for t != "" && o != "" {
		a, restA := t.next()
		b, restB := o.next()
		if wa, wb := width(a), width(b); wa != wb {
			return wa < wb
		}
		t, o = restA, restB
	}
	return o != ""
}

func width(segment string) int {
	switch segment {
	case "**":
		return 2
	case "*":
		return 1
	default:
		return 0
	}
}
