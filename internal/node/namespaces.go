package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/admin/health"
	"github.com/varvel/varvel/internal/egress"
	"github.com/varvel/varvel/internal/hostnet"
	"github.com/varvel/varvel/internal/hostnet/netns"
	"github.com/varvel/varvel/internal/kernel"
	"github.com/varvel/varvel/internal/launch"
	"github.com/varvel/varvel/internal/workload"
)

// maxNamespaces bounds the network namespaces beside the node's that have runs.
// Each costs five descriptors.
const maxNamespaces = 256

// namespaces are the other network namespaces in which runs live. The programs
// redirect to loopback, and that is each namespace's own, so each has doors, at
// the ports of the node's, from its first run until its last one has ended.
type namespaces struct {
	n *node

	closers sync.WaitGroup

	mu      sync.Mutex // guards what is below
	closed  bool
	open    map[uint64]*namespace    // by cookie
	adopted []*namespace             // of an earlier daemon, not served yet
	closing map[uint64]chan struct{} // closed when its doors are
}

// namespace is one of them.
type namespace struct {
	cookie uint64
	file   *os.File
	doors  opened
	lacks4 bool // it has no IPv4 doors
	lacks6 bool // it has no IPv6 doors
	users  int  // runs, and calls under way
	ctx    context.Context
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

func newNamespaces(n *node) *namespaces {
	return &namespaces{n: n, open: map[uint64]*namespace{}, closing: map[uint64]chan struct{}{}}
}

// of returns the cookie of the peer's network namespace, with doors in it, or 0 if
// it is the node's. What is not 0 has to be given back to leave.
func (s *namespaces) of(peer launch.Peer) (uint64, error) {
	same, err := peer.Shares("net")
	if err != nil || same {
		return 0, err
	}
	file, err := peer.Netns()
	if err != nil {
		return 0, err
	}
	var cookie uint64
	err = netns.In(file, func() (err error) {
		cookie, err = kernel.NetnsCookie()
		return err
	})
	if err == nil {
		err = s.enter(cookie, file)
	}
	if err != nil {
		file.Close()
		return 0, err
	}
	return cookie, nil
}

// enter counts one more user of a namespace, and opens its doors if it is the
// first. It takes file over if it succeeds.
func (s *namespaces) enter(cookie uint64, file *os.File) error {
	ns, err := s.enterFirst(cookie, file)
	if ns != nil {
		s.deposit(ns)
	}
	return err
}

// enterFirst returns the namespace if its user is the first.
func (s *namespaces) enterFirst(cookie uint64, file *os.File) (*namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ended := s.closing[cookie]; ended != nil; ended = s.closing[cookie] {
		s.mu.Unlock()
		<-ended // its ports come free
		s.mu.Lock()
	}
	if ns, ok := s.open[cookie]; ok {
		ns.users++
		return nil, file.Close()
	}
	switch {
	case s.closed:
		return nil, launch.Refuse("varveld is stopping.")
	case len(s.open) >= maxNamespaces:
		return nil, launch.Refuse("There are runs in %d network namespaces already, and no more are possible at once; `varvel runs` lists those that could be ended.", maxNamespaces)
	}
	ns := newNamespace(cookie, file)
	if err := ns.listen(s.n.doors); err != nil {
		return nil, err
	}
	s.open[cookie] = ns
	s.serve(ns)
	return ns, nil
}

func newNamespace(cookie uint64, file *os.File) *namespace {
	ns := &namespace{cookie: cookie, file: file, users: 1}
	ns.ctx, ns.stop = context.WithCancel(context.Background())
	return ns
}

// leave gives a use back. The doors go with the last one.
func (s *namespaces) leave(cookie uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ns, ok := s.open[cookie]
	if !ok {
		return
	}
	if ns.users--; ns.users == 0 {
		s.close(ns)
	}
}

// close ends the doors and what came through them, which may be the caller:
// nobody waits for it but who wants to enter again. The caller holds the lock.
func (s *namespaces) close(ns *namespace) {
	ended := make(chan struct{})
	delete(s.open, ns.cookie)
	s.closing[ns.cookie] = ended
	stopping := s.closed // then the keeper has them for the next daemon, or ends
	s.closers.Go(func() {
		if !stopping {
			s.forget(ns)
		}
		ns.stop()
		ns.tasks.Wait()
		ns.doors.close()
		ns.file.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.closing, ns.cookie)
		close(ended)
		if len(s.open) == 0 {
			s.n.well(health.DoorLost)
		}
		s.n.Log.Info("network namespace left", "cookie", ns.cookie)
	})
}

// run serves what was adopted, and closes everything when ctx ends.
func (s *namespaces) run(ctx context.Context) error {
	s.mu.Lock()
	for _, ns := range s.adopted {
		if s.open[ns.cookie] == ns {
			s.serve(ns)
		}
	}
	s.adopted = nil
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	for _, ns := range s.open {
		s.close(ns)
	}
	s.mu.Unlock()
	s.closers.Wait()
	return nil
}

// tell lets the kernel know what a run's namespace lacks.
func (s *namespaces) tell(run *workload.Run) error {
	lacks4, lacks6 := s.lacks(run.Netns)
	if !lacks4 && !lacks6 {
		return nil
	}
	return s.n.kernel.WithoutDoors(run.CgroupID, lacks4, lacks6)
}

// lacks says for which families a namespace has no doors. The node's lacks none here:
// what it lacks counts everywhere, and is in node.reachable.
func (s *namespaces) lacks(cookie uint64) (lacks4, lacks6 bool) {
	if cookie == 0 {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ns, ok := s.open[cookie]; ok {
		return ns.lacks4, ns.lacks6
	}
	return false, false
}

// file returns the handle of a namespace that is in use, or nil for the node's.
func (s *namespaces) file(cookie uint64) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ns, ok := s.open[cookie]; ok {
		return ns.file
	}
	return nil
}

var errNamespaceGone = errors.New("the run's network namespace has no runs any more")

// with does something with a run's namespace, which stays for as long.
func (s *namespaces) with(cookie uint64, do func(ns *os.File) error) error {
	s.mu.Lock()
	ns, ok := s.open[cookie]
	if ok {
		ns.users++
	}
	s.mu.Unlock()
	if !ok {
		return errNamespaceGone
	}
	defer s.leave(cookie)
	return do(ns.file)
}

// DialFrom implements gateway.Dialer.
func (s *namespaces) DialFrom(ctx context.Context, run *workload.Run, to netip.AddrPort) (c *net.TCPConn, err error) {
	if run.Netns == 0 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}
	err = s.with(run.Netns, func(ns *os.File) error {
		c, err = hostnet.DialIn(ctx, ns, to)
		return err
	})
	return c, err
}

// cut destroys connections of a run where it lives.
func (s *namespaces) cut(run *workload.Run, deny func(hostnet.Socket) bool) (cut int, err error) {
	if run.Netns == 0 {
		return cutAll(nil, run, deny)
	}
	err = s.with(run.Netns, func(ns *os.File) error {
		cut, err = cutAll(ns, run, deny)
		return err
	})
	return cut, err
}

// drained ends what a run that has ended still had.
func (n *node) drained(run *workload.Run) {
	n.cut(run)
	n.namespaces.leave(run.Netns)
}

// refusal says what the person who starts the run can do.
func refusal(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return launch.Refuse("A port that Varvel needs on this network namespace's loopback is taken (%v). End the program that has it, or restart varveld, which takes other ports.", err)
	case errors.Is(err, errNoLoopback), isMissing(err):
		return launch.Refuse("This network namespace has no loopback, through which a run reaches Varvel. Bring it up: ip link set lo up.")
	case err != nil:
		return fmt.Errorf("open the doors in the caller's network namespace: %w", err)
	}
	return nil
}

// serve begins to serve the doors.
func (s *namespaces) serve(ns *namespace) {
	dns := egress.NewServer(s.n.egress, s.n.kernel.PeersIn(ns.cookie), s.n.resolver)
	for _, l := range ns.doors.tcp {
		ns.tasks.Go(func() { s.ended(ns.ctx, l.Addr(), s.n.gateway.Serve(ns.ctx, l)) })
	}
	for _, c := range ns.doors.udp {
		ns.tasks.Go(func() { s.ended(ns.ctx, c.LocalAddr(), dns.ServeUDP(ns.ctx, c)) })
	}
	s.n.Log.Info("network namespace entered", "cookie", ns.cookie, "ipv4", !ns.lacks4, "ipv6", !ns.lacks6)
}

// ended tells of a door that was not closed by us. Until the last run of the
// namespace has ended, what goes there is refused.
func (s *namespaces) ended(ctx context.Context, address net.Addr, err error) {
	if ctx.Err() == nil {
		s.n.degraded(health.DoorLost, fmt.Sprintf("%s: %v", address, err))
	}
}
