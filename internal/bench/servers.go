package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/rig"
)

// What the world serves besides the port that all rules allow.
const (
	portSend = 5201
	portTLS  = 443
	portHTTP = 8080
	portDNS  = 53
	nameTLS  = "tls.bench.test"
	nameHTTP = "web.bench.test"
)

// Serve is the world's process. Its servers begin when they are told to, and end
// with its input.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return newConversation(in, out).Serve(func(o order) ([]float64, error) { return nil, serveAll(ctx, o.CA) })
}

// serveAll starts every server. The certificate that clients have to trust is
// written to a file.
func serveAll(ctx context.Context, caFile string) error {
	cert, err := newCertificate(caFile)
	if err != nil {
		return err
	}
	for _, s := range []struct {
		port   int
		handle func(net.Conn)
	}{
		{targetPort, func(net.Conn) {}},
		{portSend, swallow},
		{portTLS, func(c net.Conn) { swallow(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})) }},
	} {
		if err := serveTCP(ctx, s.port, s.handle); err != nil {
			return err
		}
	}
	return errors.Join(serveHTTP(ctx), serveNames(ctx))
}

// serveTCP gives each connection to handle and closes it afterwards.
func serveTCP(ctx context.Context, port int, handle func(net.Conn)) error {
	l, err := net.Listen("tcp4", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // one that was reset before it was accepted
			}
			if port == targetPort {
				c.Close()
				continue
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return nil
}

// swallow reads as many bytes as are announced and answers with one. A client
// that goes away before sees to that itself.
func swallow(c net.Conn) {
	var header [8]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return
	}
	if _, err := io.CopyBuffer(io.Discard, io.LimitReader(c, int64(binary.BigEndian.Uint64(header[:]))), make([]byte, 256<<10)); err != nil {
		return
	}
	_, _ = c.Write(header[:1])
}

func serveHTTP(ctx context.Context) error {
	body := strings.Repeat("x", 1024)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		// The client checks what it gets.
		_, _ = io.WriteString(w, body)
	})}
	l, err := net.Listen("tcp4", net.JoinHostPort("", strconv.Itoa(portHTTP)))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { server.Close() })
	go func() { _ = server.Serve(l) }() // ends with ctx
	return nil
}

// serveNames answers for every name with the world's address.
func serveNames(ctx context.Context) error {
	conn, err := net.ListenPacket("udp4", net.JoinHostPort("", strconv.Itoa(portDNS)))
	if err != nil {
		return err
	}
	addrs := []netip.Addr{netip.MustParseAddr(worldAddress)}
	rig.ServeNames(ctx, conn, func(net.Addr, string) ([]netip.Addr, bool) { return addrs, true })
	return nil
}

// newCertificate makes a certificate that signs itself.
func newCertificate(caFile string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{nameTLS}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	file := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(caFile, file, 0o644)
}
