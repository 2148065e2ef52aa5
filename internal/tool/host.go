package tool

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ParseHost reads name:port. The error is a *ValueError.
func ParseHost(s string) (Host, error) {
	name, port, found := cutLast(s, ":")
	if !found {
		return Host{}, invalid(fmt.Sprintf("write %q", s+":443"), "host %q has no port", s)
	}
	if strings.Contains(s, "://") {
		return Host{}, invalid("write only name:port", "host %q is a URL", s)
	}
	name, err := ParseName(name)
	if err != nil {
		return Host{}, err
	}
	n, err := ParsePort(port)
	if err != nil {
		return Host{}, err
	}
	return Host{Name: name, Port: n}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// ParsePort reads a port from 1 to 65535, in plain decimal. The error is a
// *ValueError.
func ParsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, invalid("a port is a number from 1 to 65535", "%q is not a port", s)
	}
	return uint16(n), nil
}

// ParseName reads a DNS host name and returns it in lower case. It refuses
// what is not ASCII (write the punycode form, RFC 5890), addresses, wildcards,
// trailing dots, and localhost, which is never sent to a name server
// (RFC 6761 section 6.3). The error is a *ValueError.
func ParseName(s string) (string, error) {
	if err := checkNameText(s); err != nil {
		return "", err
	}
	name := strings.ToLower(s)
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if err := checkLabel(s, label); err != nil {
			return "", err
		}
	}
	last := labels[len(labels)-1]
	switch {
	case len(name) > 253: // RFC 1035 section 2.3.4, without the length octets
		return "", invalid("the DNS has no such name; check the spelling", "name %q is longer than 253 characters", s)
	case numeric(last):
		return "", invalid("a name does not end with a number; for an address use a `cidr` rule in the agent's `egress`", "name %q ends with a number, like an address", s)
	case last == "localhost":
		return "", invalid("a run reaches its own loopback listeners without a rule", "name %q means the run's own loopback", s)
	}
	return name, nil
}

// checkNameText finds what is not a name at all.
func checkNameText(s string) error {
	switch {
	case s == "":
		return invalid("write a name such as api.example.org", "the name is empty")
	case !utf8.ValidString(s):
		return invalid("write it in ASCII", "name %q is not UTF-8", s)
	case strings.ContainsAny(s, "/@"):
		return invalid("write only the host name, without scheme, user and path", "%q is not a host name", s)
	case isAddress(s):
		return invalid("a tool needs a name; an address is allowed with a `cidr` rule in the agent's `egress`", "%q is an address, not a name", s)
	case strings.Contains(s, ":"):
		return invalid("the port does not belong to the name", "%q is not a host name", s)
	case strings.Contains(s, "*"):
		return invalid("list each name; only `egress` rules have wildcards", "name %q has a wildcard", s)
	case strings.HasSuffix(s, "."):
		return invalid(fmt.Sprintf("write %q", strings.TrimRight(s, ".")), "name %q has a trailing dot", s)
	}
	return checkASCII(s)
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil
}

func checkASCII(s string) error {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return nil
	}
	hint := "write the punycode form"
	if ascii, err := idna.Lookup.ToASCII(s); err == nil {
		hint = fmt.Sprintf("write %q", ascii)
	}
	return invalid(hint, "name %q is not ASCII", s)
}

// checkLabel judges one lower-case label of the name s. Underscores are not
// host names by RFC 952, but private zones have them.
func checkLabel(s, label string) error {
	switch {
	case label == "":
		return invalid("write one dot between labels", "name %q has an empty label", s)
	case len(label) > 63: // RFC 1035 section 2.3.4
		return invalid("the DNS has no such name; check the spelling", "name %q has a label longer than 63 characters", s)
	case strings.ContainsFunc(label, notInLabel):
		return invalid("a name has letters, digits, hyphens and dots", "name %q has a character that no host name has", s)
	case label[0] == '-' || label[len(label)-1] == '-':
		return invalid("check the spelling", "name %q has a label that begins or ends with a hyphen", s)
	}
	if strings.HasPrefix(label, "xn--") {
		if _, err := idna.Lookup.ToUnicode(label); err != nil {
			return invalid("check the punycode form", "name %q has a label that is not valid punycode", s)
		}
	}
	return nil
}

// numeric reports a last label that resolvers may read as a part of an IPv4
// address (inet_aton(3)).
func numeric(label string) bool {
	_, err := strconv.ParseUint(strings.TrimPrefix(label, "0x"), 16, 64)
	return strings.Trim(label, "0123456789") == "" || strings.HasPrefix(label, "0x") && (err == nil || label == "0x")
}

func notInLabel(r rune) bool {
	return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_')
}
