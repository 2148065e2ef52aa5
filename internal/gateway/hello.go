package gateway

import (
	"encoding/binary"
	"errors"
)

// maxHello is how many bytes a ClientHello may take with its record headers.
const maxHello = 16 << 10

var (
	errMore   = errors.New("the ClientHello is not complete")
	errNotTLS = errors.New("the first bytes are not a TLS ClientHello")
	errHello  = errors.New("the ClientHello is malformed")
	errNoSNI  = errors.New("the ClientHello names no server")
	errLong   = errors.New("the ClientHello is too long")
)

// Numbers of TLS (RFC 8446 sections 4, 4.2 and 5.1; RFC 6066 section 3).
const (
	recordHandshake      = 22
	handshakeClientHello = 1
	extServerName        = 0
	serverNameHost       = 0
	maxRecord            = 1 << 14
)

// parseHello returns the server name of the ClientHello at the start of data,
// which may be spread over records and may be followed by anything. It returns
// errMore if data is a proper beginning of one, errNotTLS if it is something
// else, errNoSNI if no name is in it, errLong if it passes maxHello, and
// errHello if it breaks the syntax.
//
// With Encrypted Client Hello the name is that of the outer hello (RFC 9849),
// which is all that anybody but the server can see.
func parseHello(data []byte) (string, error) {
	body, err := joinRecords(data)
	if err != nil {
		return "", err
	}
	return helloName(body)
}

// joinRecords returns the body of the handshake message at the start of data.
func joinRecords(data []byte) ([]byte, error) {
	var msg []byte
	for rest := data; ; {
		fragment, more, err := record(rest)
		if err != nil {
			return nil, notLonger(err, len(data))
		}
		msg, rest = append(msg, fragment...), more
		if msg[0] != handshakeClientHello {
			return nil, errNotTLS
		}
		if len(msg) < 4 {
			continue
		}
		n := 4 + (int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3]))
		switch {
		case n > maxHello:
			return nil, errLong
		case len(msg) > n:
			return nil, errHello // nothing may follow a ClientHello in its flight
		case len(msg) == n:
			return msg[4:], nil
		}
	}
}

// notLonger turns errMore into errLong once the limit is reached.
func notLonger(err error, have int) error {
	if errors.Is(err, errMore) && have >= maxHello {
		return errLong
	}
	return err
}

// record takes one record of handshake data off b.
func record(b []byte) (fragment, rest []byte, err error) {
	for i, ok := range []func(byte) bool{
		func(c byte) bool { return c == recordHandshake },
		func(c byte) bool { return c == 3 }, // legacy_record_version 0x0301 or 0x0303
		func(c byte) bool { return c <= 4 },
	} {
		if i < len(b) && !ok(b[i]) {
			return nil, nil, errNotTLS
		}
	}
	if len(b) < 5 {
		return nil, nil, errMore
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	switch {
	case n == 0 || n > maxRecord:
		return nil, nil, errHello // no empty handshake records: RFC 8446 section 5.1
	case len(b) < 5+n:
		return nil, nil, errMore
	}
	return b[5 : 5+n], b[5+n:], nil
}

// reader takes fields off a byte slice and remembers a failure.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head
}

// vector takes a field that begins with its length in lenBytes bytes.
func (r *reader) vector(lenBytes int) []byte {
	n := 0
	for _, c := range r.take(lenBytes) {
		n = n<<8 | int(c)
	}
	return r.take(n)
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return -1
}

// helloName reads the ClientHello structure (RFC 8446 section 4.1.2).
func helloName(body []byte) (string, error) {
	r := &reader{b: body}
	r.take(2 + 32) // legacy_version, random
	r.vector(1)    // legacy_session_id
	r.vector(2)    // cipher_suites
	r.vector(1)    // legacy_compression_methods
	if r.bad {
		return "", errHello
	}
	if len(r.b) == 0 {
		return "", errNoSNI // TLS 1.2 and older may have no extensions
	}
	extensions := &reader{b: r.vector(2)}
	if r.bad || len(r.b) != 0 {
		return "", errHello
	}
	return findName(extensions)
}

// findName reads all extensions, so that a second server_name is seen.
func findName(r *reader) (string, error) {
	name, found := "", false
	for len(r.b) > 0 {
		kind, data := r.uint16(), r.vector(2)
		switch {
		case r.bad:
			return "", errHello
		case kind != extServerName:
			continue
		case found:
			return "", errHello // no extension twice: RFC 8446 section 4.2
		}
		var err error
		if name, err = serverName(data); err != nil {
			return "", err
		}
		found = true
	}
	if !found {
		return "", errNoSNI
	}
	return name, nil
}

// serverName reads a ServerNameList, which holds one host name (RFC 6066
// section 3: no two of a type, and host_name is the only type).
func serverName(data []byte) (string, error) {
	list := &reader{b: data}
	names := &reader{b: list.vector(2)}
	kind, name := names.take(1), names.vector(2)
	if list.bad || names.bad || len(list.b) != 0 || len(names.b) != 0 || kind[0] != serverNameHost || len(name) == 0 {
		return "", errHello
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", errHello
		}
	}
	return string(name), nil
}
