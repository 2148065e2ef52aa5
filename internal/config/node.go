package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Limits of the node's settings.
const (
	minLifetime  = 10 * time.Second
	maxLifetime  = 5 * time.Minute // of a token; it cannot be taken back
	minKeyLife   = 10 * time.Minute
	day          = 24 * time.Hour
	maxPending   = 1000
	maxInBand    = 5 * time.Minute
	minSegment   = 128 << 10
	maxSizeLimit = 1 << 50
)

// defaultNode returns the settings that varvel.yaml may change.
func defaultNode() Node {
	return Node{
		StateDir: "/var/lib/varvel",
		RunDir:   "/run/varvel",
		Metrics:  Metrics{Listen: "127.0.0.1:9469"},
		Issuer:   Issuer{Listen: "127.0.0.1:9471", KeyLifetime: 30 * day, TokenLifetime: maxLifetime},
		Approval: Approval{InBand: 20 * time.Second, Expires: time.Hour, MaxPending: 32},
		Roles:    map[string]Principals{},
		BPFFS:    "/sys/fs/bpf",
		DNS:      DNS{Timeout: 2 * time.Second},
		Audit:    Audit{SegmentSize: 64 << 20, Reserve: 64 << 20},
	}
}

// node reads the node's document.
func (r *reader) node(n *yaml.Node, to *Node) {
	to.Pos = r.at(n)
	found := r.object(n, "node", fields{
		"trust_domain": r.text(keep(&to.TrustDomain, parseTrustDomain)),
		"state_dir":    r.text(keep(&to.StateDir, parseAbsolute)),
		"run_dir":      r.text(keep(&to.RunDir, parseRunDir)),
		"cgroup":       r.text(keep(&to.Cgroup, parseAbsolute)),
		"bpffs":        r.text(keep(&to.BPFFS, parseAbsolute)),
		"admin": r.part(fields{
			"socket": r.text(keep(&to.Admin.Socket, parseSocket)),
			"group":  r.text(keep(&to.Admin.Group, parsePrincipal)),
		}),
		"metrics":  r.part(fields{"listen": r.text(keep(&to.Metrics.Listen, parseListen))}),
		"issuer":   r.issuer(&to.Issuer),
		"policy":   r.part(fields{"dirs": r.list(r.text(collect(&to.Policy.Dirs, r.existingDir)))}),
		"approval": r.approval(&to.Approval),
		"roles":    r.roles(to.Roles),
		"dns":      r.dns(&to.DNS),
		"audit":    r.audit(&to.Audit),
	})
	if found["trust_domain"] == nil {
		r.fail(n, "write `trust_domain: example.org`, with a name that you own", "`trust_domain` is missing")
	}
}

// part reads an object that is named as its key.
func (r *reader) part(known fields) field {
	return func(key string, n *yaml.Node) { r.object(n, key, known) }
}

func (r *reader) issuer(to *Issuer) field {
	return func(key string, n *yaml.Node) {
		found := r.object(n, key, fields{
			"url":            r.text(keep(&to.URL, parseIssuerURL)),
			"listen":         r.text(keep(&to.Listen, parseListen)),
			"key_lifetime":   r.scalar("a duration", keep(&to.KeyLifetime, durationIn(minKeyLife, 366*day))),
			"token_lifetime": r.scalar("a duration", keep(&to.TokenLifetime, durationIn(minLifetime, maxLifetime))),
		})
		if found["listen"] != nil && found["url"] == nil && !isLoopback(to.Listen) {
			r.fail(n, "add `url: https://…`, as relying parties reach the issuer", "`issuer` listens for other hosts, but `url` is missing")
		}
	}
}

func (r *reader) approval(to *Approval) field {
	return r.part(fields{
		"in_band":     r.scalar("a duration", keep(&to.InBand, durationIn(0, maxInBand))),
		"expires":     r.scalar("a duration", keep(&to.Expires, durationIn(time.Second, 30*day))),
		"max_pending": r.scalar("a whole number", keep(&to.MaxPending, numberIn(1, maxPending))),
	})
}

func (r *reader) dns(to *DNS) field {
	return r.part(fields{
		"upstreams": r.list(r.text(collect(&to.Upstreams, parseUpstream))),
		"timeout":   r.scalar("a duration", keep(&to.Timeout, durationIn(100*time.Millisecond, 30*time.Second))),
	})
}

func (r *reader) audit(to *Audit) field {
	return func(key string, n *yaml.Node) {
		size := func(to *ByteSize, low ByteSize) field {
			return r.scalar("a size", keep(to, sizeIn(low, maxSizeLimit)))
		}
		r.object(n, key, fields{
			"segment_size": size(&to.SegmentSize, minSegment),
			"reserve":      size(&to.Reserve, minSegment),
			"max_size":     size(&to.MaxSize, minSegment),
		})
		if to.MaxSize != 0 && to.MaxSize < 2*to.SegmentSize {
			r.fail(n, "raise `max_size` or lower `segment_size`", "`max_size` (%s) has no room for two segments of %s", to.MaxSize, to.SegmentSize)
		}
	}
}

func (r *reader) roles(to map[string]Principals) field {
	known := fields{}
	for _, role := range Roles() {
		known[role] = func(key string, n *yaml.Node) {
			var p Principals
			r.principals(&p)(key, n)
			to[role] = p
		}
	}
	return r.part(known)
}

func (r *reader) principals(to *Principals) field {
	return r.part(fields{
		"users":  r.list(r.text(collect(&to.Users, parsePrincipal))),
		"groups": r.list(r.text(collect(&to.Groups, parsePrincipal))),
	})
}

// existingDir resolves a directory that must be readable now.
func (r *reader) existingDir(s string) (string, error) {
	path := joinDir(r.dir, s)
	if _, err := os.ReadDir(path); err != nil {
		return "", problem("create it, or let the daemon's user read it", "directory %s cannot be read: %v", path, reason(err))
	}
	return path, nil
}

// joinDir resolves a path relative to the configuration's directory.
func joinDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// parseListen reads address:port of a listener.
func parseListen(s string) (string, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return "", problem("write an address and a port, such as 127.0.0.1:9469 or [::1]:9469", "%q is not an address to listen on", s)
	}
	return ap.String(), nil
}

// parseUpstream reads the address of a name server; the port defaults to 53.
func parseUpstream(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr, dnsPort).String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return "", problem("write an address, such as 192.0.2.53 or [2001:db8::53]:53", "%q is not the address of a name server", s)
	}
	return ap.String(), nil
}

// parseIssuerURL reads the iss claim. Relying parties compare it as text and
// append paths to it (OpenID Connect Discovery 1.0 section 4).
func parseIssuerURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", problem("write a URL such as https://issuer.example.org", "%q is not a URL", s)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", problem("leave out user, query and fragment", "%q cannot be an issuer", s)
	case strings.HasSuffix(u.Path, "/"):
		return "", problem(fmt.Sprintf("write %q", strings.TrimRight(s, "/")), "%q ends with a slash", s)
	case u.Scheme == "http" && !isLoopback(u.Host):
		return "", problem("use https; only an issuer on loopback may be plain", "%q would hand out keys without TLS", s)
	}
	return s, nil
}

// isLoopback reports whether a host, with or without port, is a loopback address.
func isLoopback(host string) bool {
	if ap, err := netip.ParseAddrPort(host); err == nil {
		return ap.Addr().IsLoopback()
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

// complete fills in the defaults that depend on other settings.
func (n *Node) complete(resolvConf string) {
	if n.Admin.Socket == "" {
		n.Admin.Socket = filepath.Join(n.RunDir, "admin.sock")
	}
	if n.Issuer.URL == "" {
		n.Issuer.URL = "http://" + n.Issuer.Listen
	}
	if len(n.DNS.Upstreams) == 0 {
		n.DNS.Upstreams = nameservers(resolvConf)
	}
}

// nameservers returns those of a resolv.conf(5), at most three. Without any,
// it is the one on this host, as for the resolver library.
func nameservers(path string) []string {
	data, _ := readBounded(path) // an unreadable file lists none
	var servers []string
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if s, err := parseUpstream(words[1]); err == nil && len(servers) < 3 {
			servers = append(servers, s)
		}
	}
	if len(servers) == 0 {
		return []string{"127.0.0.1:53"}
	}
	return servers
}
