package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// maxReadErrors is how often in a row reading may fail before the socket counts
// as broken.
const maxReadErrors = 10

// Upstream resolves a name in the node's namespace; *Resolver is one.
type Upstream interface {
	// Lookup returns the addresses of a host and how long they hold, or an error
	// that wraps ErrNoSuchName or ErrNoAddress if there are none.
	Lookup(ctx context.Context, host string) ([]netip.Addr, time.Duration, error)
	// Snapshot returns what says whether a name that may lead to within may lead to
	// an address, by the state of the node now.
	Snapshot() CheckFunc
}

// Server answers the questions of runs. It is safe for concurrent use.
type Server struct {
	controller *Controller
	peers      PeerFinder
	upstream   Upstream
	log        *slog.Logger
	limits     Limits
	unknown    atomic.Uint64
}

// NewServer returns a server for the controller's runs. upstream is asked for
// direct names, and for names that are not listed of runs in observe mode; it may
// be nil, and direct names then fail and the others are refused.
func NewServer(c *Controller, peers PeerFinder, upstream Upstream) *Server {
	return &Server{
		controller: c, peers: peers, upstream: upstream,
		log: c.options.Log, limits: c.options.Limits,
	}
}

// UnknownPeers returns how many datagrams were dropped because they came from
// no run.
func (s *Server) UnknownPeers() uint64 { return s.unknown.Load() }

// ServeUDP answers datagrams until ctx ends, the socket is closed, or reading
// has failed maxReadErrors times in a row. It closes pc, waits for the answers
// that are under way, and returns nil if ctx ended.
func (s *Server) ServeUDP(ctx context.Context, pc net.PacketConn) error {
	local, err := addrPort(pc.LocalAddr())
	if err != nil {
		return fmt.Errorf("serve DNS: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = pc.Close() })
	defer stop()
	defer pc.Close()
	buf := make([]byte, 64<<10)
	for failed := 0; ; {
		n, remote, err := readFrom(pc, buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if failed++; errors.Is(err, net.ErrClosed) || failed == maxReadErrors {
				return fmt.Errorf("serve DNS on %s: %w", local, err)
			}
			s.log.Warn("datagram not read", "error", err)
			continue
		}
		failed = 0
		s.datagram(ctx, pc, &tasks, local, remote, buf[:n])
	}
}

// datagram answers one datagram: at once if all that it takes is a look-up,
// else from a task, so that a run whose refusals wait for the disk does not
// make others wait.
func (s *Server) datagram(ctx context.Context, pc net.PacketConn, tasks *sync.WaitGroup, local, remote netip.AddrPort, msg []byte) {
	state, ok := s.peer(local, remote)
	if !ok {
		s.unknown.Add(1)
		return
	}
	if !state.queries.Allow() {
		state.count.limited.Add(1)
		return
	}
	q, answer := s.parse(state, msg, maxUDP)
	if q != nil {
		answer = q.known()
	}
	if q == nil || answer != nil {
		s.send(ctx, pc, remote, answer)
		return
	}
	select {
	case state.tasks <- struct{}{}:
	default:
		state.count.limited.Add(1)
		return
	}
	tasks.Go(func() {
		defer func() { <-state.tasks }()
		s.send(ctx, pc, remote, s.reply(ctx, q))
	})
}

// peer returns the run that a datagram came from.
func (s *Server) peer(local, remote netip.AddrPort) (*runState, bool) {
	cgroupID, ok := s.peers.PeerOf(local, remote)
	if !ok {
		return nil, false
	}
	return s.controller.state(cgroupID)
}

// send writes an answer, if there is one.
func (s *Server) send(ctx context.Context, pc net.PacketConn, to netip.AddrPort, answer []byte) {
	if answer == nil {
		return
	}
	if err := writeTo(pc, answer, to); err != nil && ctx.Err() == nil {
		s.log.Debug("answer not sent", "error", err)
	}
}

// readFrom is pc.ReadFrom without the allocations where that can be had.
func readFrom(pc net.PacketConn, buf []byte) (int, netip.AddrPort, error) {
	if u, ok := pc.(*net.UDPConn); ok {
		n, remote, err := u.ReadFromUDPAddrPort(buf)
		return n, netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), err
	}
	n, from, err := pc.ReadFrom(buf)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	remote, err := addrPort(from)
	return n, remote, err
}

func writeTo(pc net.PacketConn, msg []byte, to netip.AddrPort) error {
	if u, ok := pc.(*net.UDPConn); ok {
		_, err := u.WriteToUDPAddrPort(msg, to)
		return err
	}
	_, err := pc.WriteTo(msg, net.UDPAddrFromAddrPort(to))
	return err
}

// addrPort reads the address of a UDP socket.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%v is not the address of a UDP socket", a)
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
