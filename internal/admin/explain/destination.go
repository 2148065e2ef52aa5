package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
	"github.com/varvel/varvel/internal/tool"
)

// ParseDestination reads a destination as people write it: a name, name:port,
// an address, address:port, [address]:port, or a URL, whose path does not
// count. Errors say to people what is wrong with it.
func ParseDestination(s string) (api.Destination, error) {
	switch {
	case s == "":
		return api.Destination{}, errors.New("it is empty; write a name, an address or a URL, with a port if you like, such as api.example.org:443")
	case len(s) > 2048:
		return api.Destination{}, errors.New("it is too long")
	case strings.Contains(s, "://"):
		return fromURL(s)
	}
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return withAddress(addr, 0)
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return withAddress(ap.Addr(), ap.Port())
	}
	name, port, found := strings.Cut(s, ":")
	if !found {
		return withName(name, 0)
	}
	n, err := parsePort(port)
	if err != nil {
		return api.Destination{}, err
	}
	return withName(name, n)
}

// fromURL takes host and port of a URL, and the scheme's port if it has none.
func fromURL(s string) (api.Destination, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return api.Destination{}, fmt.Errorf("%.80q is not a URL with a host", s)
	}
	port, ok := schemePort(u.Scheme)
	if p := u.Port(); p != "" {
		if port, err = parsePort(p); err != nil {
			return api.Destination{}, err
		}
	} else if !ok {
		return api.Destination{}, fmt.Errorf("the port of the scheme %.20q is not known; write name:port", u.Scheme)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		return withAddress(addr, port)
	}
	return withName(u.Hostname(), port)
}

func schemePort(scheme string) (uint16, bool) {
	switch scheme {
	case "http", "ws":
		return 80, true
	case "https", "wss":
		return 443, true
	case "ssh", "sftp":
		return 22, true
	case "git":
		return 9418, true
	case "postgres", "postgresql":
		return 5432, true
	}
	return 0, false
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.20q is not a port, which is a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

func withAddress(addr netip.Addr, port uint16) (api.Destination, error) {
	if addr.Zone() != "" {
		return api.Destination{}, errors.New("an address with a zone is link-local, which is never reached")
	}
	return api.Destination{Address: addr.Unmap(), Port: port}, nil
}

// withName reads a host name; one trailing dot and upper case are as good.
func withName(name string, port uint16) (api.Destination, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if isLocalhost(name) {
		return api.Destination{Name: name, Port: port}, nil
	}
	parsed, err := tool.ParseName(name)
	if err != nil {
		return api.Destination{}, err
	}
	return api.Destination{Name: parsed, Port: port}, nil
}

// isLocalhost reports the names that always mean loopback (RFC 6761, section 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
