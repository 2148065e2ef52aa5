package world

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// task is something that serves until its context ends.
type task func(context.Context) error

// Run starts every server of the plan in the current network namespace, calls
// ready when all listen, and serves until the context ends. The authority's
// certificate is in the plan's folder by then.
func Run(ctx context.Context, p Plan, ready func() error) error {
	authority, err := NewAuthority(NameAllowed, NameOther, NameGit, NameIssuer)
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if err := os.WriteFile(p.File("ca.pem"), authority.PEM(), 0o644); err != nil {
		return err
	}
	b := &builder{plan: p, authority: authority}
	defer b.close()
	for _, step := range []func() error{b.names, b.shared, b.issuer, b.git, b.unlisted} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := ready(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, t := range b.tasks {
		group.Go(func() error { return t(ctx) })
	}
	return group.Wait()
}

// builder opens listeners and logs, and collects what is to run.
type builder struct {
	plan      Plan
	authority *Authority
	tasks     []task
	closers   []func() error
}

func (b *builder) close() {
	for _, c := range b.closers {
		// Most are closed by their servers already.
		_ = c()
	}
}

func (b *builder) log(name string) (*Log, error) {
	l, err := CreateLog(b.plan.LogFile(name))
	if err == nil {
		b.closers = append(b.closers, l.Close)
	}
	return l, err
}

func (b *builder) listen(addr netip.Addr, port uint16) (net.Listener, error) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, port).String())
	if err == nil {
		b.closers = append(b.closers, l.Close)
	}
	return l, err
}

func (b *builder) listenUDP(addr netip.Addr, port uint16) (net.PacketConn, error) {
	c, err := net.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
	if err == nil {
		b.closers = append(b.closers, c.Close)
	}
	return c, err
}

func (b *builder) names() error {
	log, err := b.log(LogNames)
	if err != nil {
		return err
	}
	server := &NameServer{Zone: b.plan.Zone(), Any: b.plan.Unlisted.V4, Log: log}
	return b.each(b.plan.Names, 53, func(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
		return server.Serve(ctx, udp, tcp)
	})
}

func (b *builder) unlisted() error {
	log, err := b.log(LogUnlisted)
	if err != nil {
		return err
	}
	server := &Unlisted{Log: log}
	return b.each(b.plan.Unlisted, PortUnlisted, func(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return server.ServeTCP(ctx, tcp) })
		group.Go(func() error { return server.ServeUDP(ctx, udp) })
		return group.Wait()
	})
}

// each listens by TCP and UDP on both addresses of a host.
func (b *builder) each(h Host, port uint16, serve func(context.Context, net.PacketConn, net.Listener) error) error {
	for _, addr := range h.Addrs() {
		udp, err := b.listenUDP(addr, port)
		if err != nil {
			return err
		}
		tcp, err := b.listen(addr, port)
		if err != nil {
			return err
		}
		b.tasks = append(b.tasks, func(ctx context.Context) error { return serve(ctx, udp, tcp) })
	}
	return nil
}

func (b *builder) shared() error {
	log, err := b.log(LogShared)
	if err != nil {
		return err
	}
	server := &Shared{Certificate: b.authority.Certificate, Log: log}
	return b.https(b.plan.Shared, server.Serve)
}

func (b *builder) git() error {
	log, err := b.log(LogGit)
	if err != nil {
		return err
	}
	server := &Git{
		Root:        b.plan.File("git"),
		Certificate: b.authority.Certificate,
		Log:         log,
		Verifier:    &Verifier{Issuer: IssuerURL, Audience: Audience, Client: b.client(b.plan.Issuer)},
	}
	return b.https(b.plan.Git, server.Serve)
}

// client reaches one host, whatever the URL's name, and trusts the demo's
// authority only.
func (b *builder) client(to Host) *http.Client {
	dialer := new(net.Dialer)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: b.authority.Pool()},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, netip.AddrPortFrom(to.V4, 443).String())
		},
	}}
}

func (b *builder) issuer() error {
	log, err := b.log(LogIssuer)
	if err != nil {
		return err
	}
	front := &Front{To: b.plan.IssuerListen(), Certificate: b.authority.Certificate, Log: log}
	return b.https(b.plan.Issuer, front.Serve)
}

func (b *builder) https(h Host, serve func(context.Context, net.Listener) error) error {
	for _, addr := range h.Addrs() {
		l, err := b.listen(addr, 443)
		if err != nil {
			return err
		}
		b.tasks = append(b.tasks, func(ctx context.Context) error { return serve(ctx, l) })
	}
	return nil
}
