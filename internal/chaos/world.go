package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/varvel/varvel/internal/rig"
)

// Serve is the world's process: it listens everywhere and answers orders until
// its input ends. Every leak is written to a file.
func Serve(ctx context.Context, in io.Reader, out io.Writer, file string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	l := newLedger(log)
	// The wire comes after the process. The first order does as well.
	listening := false
	return rig.NewConversation[order, arrived](in, out).Serve(func(o order) (arrived, error) {
		if !listening {
			if err := l.listen(ctx); err != nil {
				return arrived{}, err
			}
			listening = true
		}
		return l.report(o)
	})
}

// listen opens every receiver.
func (l *ledger) listen(ctx context.Context) error {
	for _, h := range []byte{hostListed, hostUnlisted, hostAlpha, hostBeta} {
		for _, a := range []netip.Addr{v4(h), v6(h)} {
			for _, p := range []uint16{port, otherPort} {
				if err := l.receive(ctx, netip.AddrPortFrom(a, p)); err != nil {
					return err
				}
			}
		}
	}
	for _, a := range []netip.Addr{v4(hostNames), v6(hostNames)} {
		to := netip.AddrPortFrom(a, 53)
		conn, err := net.ListenPacket("udp", to.String())
		if err != nil {
			return err
		}
		rig.ServeNames(ctx, conn, func(from net.Addr, name string) ([]netip.Addr, bool) {
			l.add(arrival{network: "dns", from: hostIP(from), to: to, payload: name})
			return answers(name)
		})
	}
	return nil
}

// answers is the world's zone: the agents' names, and every name below exfil.
func answers(name string) ([]netip.Addr, bool) {
	for _, agent := range []string{alpha, beta} {
		if name == nameOf(agent) {
			return []netip.Addr{v4(hostOf(agent)), v6(hostOf(agent))}, true
		}
	}
	if n := len(name) - len(exfil); n > 0 && name[n:] == exfil && name[n-1] == '.' {
		return []netip.Addr{v4(hostUnlisted), v6(hostUnlisted)}, true
	}
	return nil, false
}

// receive takes whatever comes to an address, over TCP and UDP, and sends it back.
func (l *ledger) receive(ctx context.Context, to netip.AddrPort) error {
	tcp, err := net.Listen("tcp", to.String())
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { tcp.Close() })
	udp, err := net.ListenPacket("udp", to.String())
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { udp.Close() })
	if err := udp.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		return err
	}
	go l.accept(ctx, tcp, to)
	go l.datagrams(udp, to)
	return nil
}

func (l *ledger) accept(ctx context.Context, tcp net.Listener, to netip.AddrPort) {
	for {
		conn, err := tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // one that was reset before it was accepted
		}
		go func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			l.stream(conn, to)
		}()
	}
}

// stream takes a connection's lines. Of what is no line, the beginning counts.
func (l *ledger) stream(conn net.Conn, to netip.AddrPort) {
	from := hostIP(conn.RemoteAddr())
	l.add(arrival{network: "tcp", from: from, to: to})
	for r := bufio.NewReaderSize(conn, 256); ; {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			l.add(arrival{network: "tcp", from: from, to: to, payload: string(line)})
		}
		if err != nil {
			return
		}
		if _, err := conn.Write(line); err != nil {
			return
		}
	}
}

func (l *ledger) datagrams(udp net.PacketConn, to netip.AddrPort) {
	buf := make([]byte, 2048)
	for {
		n, from, err := udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer that nobody waited for
		}
		l.add(arrival{network: "udp", from: hostIP(from), to: to, payload: string(buf[:n])})
		// Who does not get an answer will say so.
		_, _ = udp.WriteTo(buf[:n], from)
	}
}

func hostIP(a net.Addr) netip.Addr {
	to, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{} // not the outsiders'
	}
	return to.Addr().Unmap()
}

// startWorld starts the world and lays the wire to it.
func startWorld(ctx context.Context, leaks string) (*rig.Process[order, arrived], error) {
	p, err := startPart[arrived](ctx, syscall.CLONE_NEWNET, ArgWorld, leaks)
	if err != nil {
		return nil, err
	}
	here := append(addresses(hostNode), hidden(addresses(hostOutsiders))...)
	// Synthetic addresses need a route, too, before the kernel changes them.
	here = append(here, fmt.Sprintf("route add default via %s", v4(hostNames)), fmt.Sprintf("route add ::/0 via %s", v6(hostNames)))
	there := addresses(hostListed, hostUnlisted, hostNames, hostAlpha, hostBeta)
	if err := rig.Wire(ctx, p.Cmd.Process.Pid, here, there); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if _, err := p.Ask(order{}); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}
