package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/varvel/varvel/internal/hostnet/netns"
	"github.com/varvel/varvel/internal/keeper"
	"github.com/varvel/varvel/internal/kernel"
)

var errNoLoopback = errors.New("loopback is not there or down")

// opened are the doors of a namespace.
type opened struct {
	tcp []*net.TCPListener
	udp []*net.UDPConn
}

func (o *opened) close() {
	for _, l := range o.tcp {
		l.Close()
	}
	for _, c := range o.udp {
		c.Close()
	}
}

// listen opens the doors at the ports of the node's. A namespace that lacks one of
// the loopback addresses has those of the other. A family that the node could not
// open is refused everywhere.
func (ns *namespace) listen(d kernel.Doors) (err error) {
	o := &ns.doors
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	err = netns.In(ns.file, func() error {
		if lo, err := net.InterfaceByName("lo"); err != nil || lo.Flags&net.FlagUp == 0 {
			return errNoLoopback
		}
		err4 := o.add("127.0.0.1", d.TCP4, d.UDP4)
		err6 := o.add("::1", d.TCP6, d.UDP6)
		ns.lacks4, ns.lacks6 = isMissing(err4), isMissing(err6)
		if len(o.tcp) > 0 && (err4 == nil || ns.lacks4) && (err6 == nil || ns.lacks6) {
			return nil
		}
		return errors.Join(err4, err6)
	})
	return refusal(err)
}

// add opens both doors of a family, unless the node has none of it.
func (o *opened) add(host string, tcp, udp uint16) error {
	if tcp == 0 {
		return nil
	}
	address := netip.MustParseAddr(host)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, tcp)))
	if err != nil {
		return err
	}
	o.tcp = append(o.tcp, l)
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, udp)))
	if err != nil {
		return err
	}
	o.udp = append(o.udp, c)
	return nil
}

// deposits are what the keeper has of a namespace, by name: its handle and its
// doors, with what waits at them.
func (ns *namespace) deposits() map[string]syscall.Conn {
	all := map[string]syscall.Conn{namespaceDeposit(ns.cookie): ns.file}
	for _, l := range ns.doors.tcp {
		all[doorDeposit(ns.cookie, "tcp", l.Addr())] = l
	}
	for _, c := range ns.doors.udp {
		all[doorDeposit(ns.cookie, "udp", c.LocalAddr())] = c
	}
	return all
}

func namespaceDeposit(cookie uint64) string { return fmt.Sprintf("netns/%d", cookie) }

func doorDeposit(cookie uint64, network string, at net.Addr) string {
	family := "6"
	if a, err := netip.ParseAddrPort(at.String()); err == nil && a.Addr().Unmap().Is4() {
		family = "4"
	}
	return namespaceDeposit(cookie) + "/" + network + family
}

// deposit has the keeper hold a namespace for the next daemon. Its caller is a user of
// it, and does not hold the lock: a keeper that does not answer must not stop others.
func (s *namespaces) deposit(ns *namespace) {
	for name, c := range ns.deposits() {
		raw, err := c.SyscallConn()
		if err == nil {
			err = s.n.keeper.Put(name, raw)
		}
		if err != nil {
			s.n.Log.Warn("the keeper does not hold what runs in another network namespace need to outlive this daemon", "name", name, "error", err)
		}
	}
}

// forget has the keeper let go of a namespace, before anybody can enter it again.
func (s *namespaces) forget(ns *namespace) {
	for name := range ns.deposits() {
		if err := s.n.keeper.Drop(name); err != nil {
			s.n.Log.Debug("the keeper was not told", "name", name, "error", err)
		}
	}
}

// adopt counts one more user of a namespace of an earlier daemon, and takes its
// doors over from the keeper if it is the first. They are served by run.
func (s *namespaces) adopt(cookie uint64) error {
	ns, err := s.takeOver(cookie)
	if ns != nil {
		s.deposit(ns)
	}
	return err
}

// takeOver returns the namespace if its user is the first.
func (s *namespaces) takeOver(cookie uint64) (*namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ns, ok := s.open[cookie]; ok {
		ns.users++
		return nil, nil
	}
	handle := s.n.found.TakeFile(namespaceDeposit(cookie))
	if handle == nil {
		return nil, errors.New("the keeper has no handle of its network namespace")
	}
	ns := newNamespace(cookie, handle)
	if err := ns.takeDoors(s.n.found, s.n.doors); err != nil {
		ns.doors.close()
		ns.file.Close()
		return nil, fmt.Errorf("take over the doors of its network namespace: %w", err)
	}
	s.open[cookie] = ns
	s.adopted = append(s.adopted, ns)
	return ns, nil
}

// takeDoors takes what the keeper has: the doors of both families, or of the one
// that the namespace has. The programs redirect to the ports of the node's doors,
// so these have to be there.
func (ns *namespace) takeDoors(found *keeper.Found, d kernel.Doors) error {
	prefix := namespaceDeposit(ns.cookie)
	ns.lacks4, ns.lacks6 = !found.Has(prefix+"/tcp4"), !found.Has(prefix+"/tcp6")
	if ns.lacks4 && ns.lacks6 {
		return errors.New("the keeper has none of them")
	}
	if !ns.lacks4 {
		if err := ns.takeFamily(found, "4", d.TCP4, d.UDP4); err != nil {
			return err
		}
	}
	if ns.lacks6 {
		return nil
	}
	return ns.takeFamily(found, "6", d.TCP6, d.UDP6)
}

func (ns *namespace) takeFamily(found *keeper.Found, family string, tcp, udp uint16) error {
	prefix := namespaceDeposit(ns.cookie)
	l, err := takeDoor(found, prefix+"/tcp"+family, func(f *os.File) (*net.TCPListener, error) { return as[*net.TCPListener](net.FileListener(f)) })
	if err != nil {
		return err
	}
	ns.doors.tcp = append(ns.doors.tcp, l)
	c, err := takeDoor(found, prefix+"/udp"+family, func(f *os.File) (*net.UDPConn, error) { return as[*net.UDPConn](net.FilePacketConn(f)) })
	if err != nil {
		return err
	}
	ns.doors.udp = append(ns.doors.udp, c)
	if got := l.Addr().(*net.TCPAddr).Port; got != int(tcp) {
		return fmt.Errorf("its door for TCP is at port %d, and the node's at %d", got, tcp)
	}
	if got := c.LocalAddr().(*net.UDPAddr).Port; got != int(udp) {
		return fmt.Errorf("its door for UDP is at port %d, and the node's at %d", got, udp)
	}
	return nil
}

func takeDoor[T any](found *keeper.Found, name string, reuse func(*os.File) (T, error)) (door T, err error) {
	f := found.TakeFile(name)
	if f == nil {
		return door, fmt.Errorf("the keeper has no %s", name)
	}
	defer f.Close()
	return reuse(f)
}
