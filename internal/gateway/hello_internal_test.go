package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// realHello returns what crypto/tls sends first.
func realHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, config).Handshake() // fails when server is closed
		_ = client.Close()
	}()
	buf := make([]byte, maxHello)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// vec is a TLS vector with its length in n bytes.
func vec(n int, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return append(length[4-n:], body...)
}

func ext(kind uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, kind), vec(2, body)...)
}

func sni(name string) []byte { return ext(0, vec(2, []byte{0}, vec(2, []byte(name)))) }

// made is a handshake message with the given extensions.
func made(extensions ...[]byte) []byte {
	body := bytes.Join([][]byte{
		{3, 3}, make([]byte, 32), vec(1, make([]byte, 32)), vec(2, []byte{0x13, 0x01}), vec(1, []byte{0}), vec(2, extensions...),
	}, nil)
	return append([]byte{1}, vec(3, body)...)
}

// records spreads a message over records of at most size bytes.
func records(message []byte, size int) []byte {
	var out []byte
	for len(message) > 0 {
		n := min(size, len(message))
		out = append(append(out, 22, 3, 1), vec(2, message[:n])...)
		message = message[n:]
	}
	return out
}

func TestParseHello(t *testing.T) {
	good := made(sni("a.example"))
	grease := made(ext(0x1a1a, nil), sni("a.example"), ext(0xfe0d, make([]byte, 200)), ext(0x2a2a, []byte{0}))
	two := ext(0, vec(2, []byte{0}, vec(2, []byte("a.example")), []byte{0}, vec(2, []byte("b.example"))))
	bare := append([]byte{1}, vec(3, []byte{3, 3}, make([]byte, 32), vec(1), vec(2, []byte{0, 1}), vec(1, []byte{0}))...)
	for _, tc := range []struct {
		name string
		data []byte
		want string
		err  error
	}{
		{"crypto/tls", realHello(t, &tls.Config{ServerName: "Real.Example"}), "Real.Example", nil},
		{"TLS 1.2", realHello(t, &tls.Config{ServerName: "old.example", MaxVersion: tls.VersionTLS12}), "old.example", nil},
		{"no name", realHello(t, &tls.Config{InsecureSkipVerify: true}), "", errNoSNI},
		{"made", records(good, 1<<14), "a.example", nil},
		{"GREASE and outer hello", records(grease, 1<<14), "a.example", nil},
		{"one byte a record", records(good, 1), "a.example", nil},
		{"early data follows", append(records(good, 99), 23, 3, 3, 0, 1, 0), "a.example", nil},
		{"no extensions", records(bare, 99), "", errNoSNI},
		{"trailing dot is kept", records(made(sni("a.example.")), 99), "a.example.", nil},
		{"two names", records(made(two), 99), "", errHello},
		{"two extensions", records(made(sni("a.example"), sni("b.example")), 99), "", errHello},
		{"empty name", records(made(sni("")), 99), "", errHello},
		{"NUL in name", records(made(sni("a\x00.example")), 99), "", errHello},
		{"name of another type", records(made(ext(0, vec(2, []byte{1}, vec(2, []byte("a"))))), 99), "", errHello},
		{"empty list", records(made(ext(0, vec(2))), 99), "", errHello},
		{"bytes after the list", records(made(ext(0, append(vec(2, []byte{0}, vec(2, []byte("a"))), 0))), 99), "", errHello},
		{"message after it", records(append(bytes.Clone(good), 1, 0, 0, 0), 1<<14), "", errHello},
		{"empty record", []byte{22, 3, 1, 0, 0}, "", errHello},
		{"record too long", []byte{22, 3, 1, 0x40, 1}, "", errHello},
		{"another message", []byte{22, 3, 1, 0, 1, 2}, "", errNotTLS},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", errNotTLS},
		{"SSLv2", []byte{0x80, 0x2e, 1, 3, 1}, "", errNotTLS},
		{"SSH", []byte("SSH-2.0-x"), "", errNotTLS},
		{"claims to be long", []byte{22, 3, 1, 0, 4, 1, 1, 0, 0}, "", errLong},
		{"is long", records(made(ext(21, make([]byte, maxHello))), 1<<14)[:maxHello], "", errLong},
		{"nothing", nil, "", errMore},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseHello(tc.data)
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestParseHelloPrefixesNeedMore(t *testing.T) {
	for _, size := range []int{1, 7, 1 << 14} {
		data := records(made(sni("a.example")), size)
		for n := range data {
			if _, err := parseHello(data[:n]); !errors.Is(err, errMore) {
				t.Fatalf("records of %d, first %d bytes: %v", size, n, err)
			}
		}
	}
}

func TestPeekHello(t *testing.T) {
	hello := records(made(sni("a.example")), 20)
	client, server := net.Pipe()
	defer client.Close()
	go func() { // one byte a segment
		for i := range hello {
			_, _ = client.Write(hello[i : i+1])
		}
	}()
	read, name, err := peekHello(server, 10*time.Second)
	if err != nil || name != "a.example" || !bytes.Equal(read, hello) {
		t.Errorf("got %q, %v, %d of %d bytes", name, err, len(read), len(hello))
	}
	if _, _, err := peekHello(server, time.Millisecond); err == nil {
		t.Error("a silent client was waited for")
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(realHello(f, &tls.Config{ServerName: "seed.example"}))
	f.Add(records(made(sni("a.example"), sni("b.example")), 3))
	f.Add(records(made(ext(0x1a1a, nil), sni("a.example")), 50))
	f.Fuzz(func(t *testing.T, data []byte) {
		name, err := parseHello(data)
		if err != nil {
			return
		}
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("accepted the name %q", name)
		}
		// What Go's own server reads must be the same, if it reads anything.
		if other, ok := stdlibName(data); ok && other != strings.TrimSuffix(name, ".") && other != name {
			t.Errorf("crypto/tls reads %q, we read %q", other, name)
		}
	})
}

// stdlibName is the server name as crypto/tls understands it.
func stdlibName(data []byte) (string, bool) {
	stop := errors.New("seen")
	var name string
	var ok bool
	config := &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = i.ServerName, true
		return nil, stop
	}}
	_ = tls.Server(&fixedConn{Reader: bytes.NewReader(data)}, config).Handshake() // always an error
	return name, ok
}

// fixedConn reads what is given and forgets what is written.
type fixedConn struct {
	*bytes.Reader
	net.Conn
}

func (c *fixedConn) Read(p []byte) (int, error)  { return c.Reader.Read(p) }
func (c *fixedConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *fixedConn) Close() error                { return nil }
func (c *fixedConn) SetDeadline(time.Time) error { return nil }
func (c *fixedConn) SetWriteDeadline(time.Time) error {
	return nil
}
func (c *fixedConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }
