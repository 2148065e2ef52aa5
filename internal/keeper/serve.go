package keeper

import (
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what a keeper takes. A daemon has at most 1024 runs with somebody
// who waits, and two names for each.
const (
	maxNames       = 8192
	maxDescriptors = 16384
	maxPeers       = 8
	peerPatience   = 5 * time.Second // for an answer to be taken
)

// server is the keeper's one loop and what it holds.
type server struct {
	listener int
	trusted  func(peer unix.Ucred) bool
	names    int // how many there may be
	most     int // descriptors there may be

	held  map[string][]int
	count int // descriptors in held
	peers []int
	done  bool
}

func newServer(listener int, trusted func(unix.Ucred) bool) *server {
	return &server{listener: listener, trusted: trusted, names: maxNames, most: maxDescriptors, held: map[string][]int{}}
}

// serve takes messages until it is told to quit, or cannot wait for them any
// more. It closes everything that it holds.
func (s *server) serve() error {
	defer s.closeAll()
	for !s.done {
		fds := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		for _, p := range s.peers {
			fds = append(fds, unix.PollFd{Fd: int32(p), Events: unix.POLLIN})
		}
		switch _, err := unix.Ppoll(fds, nil, nil); {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		}
		for _, f := range fds[1:] {
			if f.Revents != 0 && !s.done {
				s.hear(int(f.Fd))
			}
		}
		if fds[0].Revents != 0 && !s.done {
			s.accept()
		}
	}
	return nil
}

func (s *server) closeAll() {
	for name := range s.held {
		s.drop(name)
	}
	for _, p := range s.peers {
		unix.Close(p)
	}
	unix.Close(s.listener)
}

// accept lets the daemon in.
func (s *server) accept() {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		time.Sleep(10 * time.Millisecond) // no descriptor is free, say
		return
	}
	limit := unix.NsecToTimeval(peerPatience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil || !s.trusted(*cred):
		s.answer(fd, message{status: statusRefused})
		unix.Close(fd)
	case len(s.peers) == maxPeers:
		s.answer(fd, message{status: statusFull})
		unix.Close(fd)
	default:
		s.peers = append(s.peers, fd)
	}
}

// hear takes one message of a peer. One that says nothing sensible is cut off.
func (s *server) hear(peer int) {
	var raw [messageSize + 1]byte
	oob := make([]byte, unix.CmsgSpace(4*(MaxDescriptors+1)))
	n, oobn, flags, _, err := unix.Recvmsg(peer, raw[:], oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	fds := descriptors(oob[:max(oobn, 0)])
	if err != nil || n <= 0 {
		s.cut(peer, fds)
		return
	}
	m, err := decode(raw[:n])
	switch {
	case err != nil:
		s.answer(peer, message{status: statusMalformed})
		s.cut(peer, fds)
	case flags&unix.MSG_CTRUNC != 0: // no descriptor is free, or there are too many
		closeFDs(fds)
		s.answer(peer, message{op: m.op, status: statusFull, name: m.name})
	case !s.obey(peer, m, fds):
		s.cut(peer, nil)
	}
}

func (s *server) cut(peer int, fds []int) {
	closeFDs(fds)
	s.peers = slices.DeleteFunc(s.peers, func(p int) bool { return p == peer })
	unix.Close(peer)
}

// obey does what a message says. It reports whether the conversation goes on.
func (s *server) obey(peer int, m message, fds []int) bool {
	reply := message{op: m.op, name: m.name}
	switch {
	case m.op == opQuit:
		closeFDs(fds)
		s.done = true
		s.answer(peer, message{op: opQuit})
		return true
	case m.version != Version:
		closeFDs(fds)
		reply = message{op: m.op, status: statusVersion}
	case m.op == opPut && m.name != "" && len(fds) > 0 && len(fds) <= MaxDescriptors:
		reply.status = s.put(m.name, fds)
	case m.op == opDrop && m.name != "" && len(fds) == 0:
		s.drop(m.name)
	case m.op == opList && m.name == "" && len(fds) == 0:
		return s.list(peer)
	default:
		closeFDs(fds)
		s.answer(peer, message{op: m.op, status: statusMalformed})
		return false
	}
	return s.answer(peer, reply)
}

// put holds descriptors in place of what the name has. If they do not fit, the
// name keeps what it has.
func (s *server) put(name string, fds []int) status {
	old, known := s.held[name]
	if !known && len(s.held) >= s.names || s.count-len(old)+len(fds) > s.most {
		closeFDs(fds)
		return statusFull
	}
	s.drop(name)
	s.held[name] = fds
	s.count += len(fds)
	return statusOK
}

func (s *server) drop(name string) {
	s.count -= len(s.held[name])
	closeFDs(s.held[name])
	delete(s.held, name)
}

func (s *server) list(peer int) bool {
	for _, name := range slices.Sorted(maps.Keys(s.held)) {
		if !s.answer(peer, message{op: opList, status: statusItem, name: name}, s.held[name]...) {
			return false
		}
	}
	return s.answer(peer, message{op: opList})
}

// answer reports whether the peer could be told. One that does not listen for
// peerPatience is not waited for.
func (s *server) answer(peer int, m message, fds ...int) bool {
	m.version = Version
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for tries := 0; ; tries++ {
		_, err := unix.SendmsgN(peer, m.encode(), rights, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err == unix.ETOOMANYREFS && tries < 1000: // too many are under way (unix(7)); the peer takes them
			time.Sleep(time.Millisecond)
		default:
			return err == nil
		}
	}
}

// descriptors takes the descriptors out of a control message.
func descriptors(oob []byte) []int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var all []int
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			all = append(all, fds...)
		}
	}
	return all
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
