// Package peer says which process is at the other end of a unix socket, by
// what the kernel noted when it connected. Nothing that the process sends
// counts.
package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrGone is returned, wrapped, when the process that connected has ended. Its
// connection may be in other hands by now.
var ErrGone = errors.New("the process that connected has ended")

// Peer is the process that connected. UID and GID are those of that moment
// (unix(7), SO_PEERCRED); Groups are read from the process right after.
type Peer struct {
	PID    int // in this process's PID namespace
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups

	handle *os.File // a pidfd; nil on kernels without SO_PEERPIDFD
	start  string   // start time in clock ticks, where there is no pidfd
}

// Of asks the kernel who has connected to the other end of c. Close frees what
// it holds.
func Of(c *net.UnixConn) (*Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("peer of a connection: %w", err)
	}
	var p *Peer
	if e := raw.Control(func(fd uintptr) { p, err = ofSocket(int(fd)) }); e != nil {
		return nil, fmt.Errorf("peer of a connection: %w", e)
	}
	return p, err
}

func ofSocket(fd int) (*Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("credentials of the peer: %w", err)
	}
	// 0 is a process that this PID namespace cannot see (net/core/sock.c, cred_to_ucred).
	if cred.Pid <= 0 {
		return nil, errors.New("the peer's process is not visible from here")
	}
	p := &Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
	if err := p.hold(fd); err != nil {
		return nil, err
	}
	p.Groups, err = supplementary(p.PID)
	if err = errors.Join(err, p.Alive()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// hold takes a handle of the process that cannot become another process.
func (p *Peer) hold(fd int) error {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		unix.CloseOnExec(pidfd)
		p.handle = os.NewFile(uintptr(pidfd), "pidfd")
		return nil
	case !errors.Is(err, unix.ENOPROTOOPT): // before Linux 6.5
		return fmt.Errorf("handle of the peer's process: %w", err)
	}
	p.start, err = startTime(p.PID)
	return err
}

// Alive returns an error that wraps ErrGone if the process has ended. While it
// lives, PID is this process and no other.
func (p *Peer) Alive() error {
	if p.handle == nil {
		return p.sameStart()
	}
	raw, err := p.handle.SyscallConn()
	if err != nil {
		return fmt.Errorf("handle of process %d: %w", p.PID, err)
	}
	var n int
	var pollErr error
	if err := raw.Control(func(fd uintptr) { n, pollErr = poll(int32(fd)) }); err != nil {
		return fmt.Errorf("handle of process %d: %w", p.PID, err)
	}
	switch {
	case pollErr != nil:
		return fmt.Errorf("handle of process %d: %w", p.PID, pollErr)
	case n > 0: // readable: the process has ended (pidfd_open(2))
		return fmt.Errorf("%w (process %d)", ErrGone, p.PID)
	}
	return nil
}

func poll(fd int32) (int, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLIN}}, 0)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// sameStart compares the start time of the process that has the PID now.
func (p *Peer) sameStart() error {
	start, err := startTime(p.PID)
	if err != nil {
		return err
	}
	if start != p.start {
		return fmt.Errorf("%w (process %d is another one now)", ErrGone, p.PID)
	}
	return nil
}

// Close frees the handle. Later calls of Alive fail.
func (p *Peer) Close() error {
	if p.handle == nil {
		return nil
	}
	return p.handle.Close()
}

// InGroup reports whether gid is the peer's primary or a supplementary group.
func (p *Peer) InGroup(gid uint32) bool { return p.GID == gid || slices.Contains(p.Groups, gid) }

// AllGroups returns the primary group, then the others without repetition.
func (p *Peer) AllGroups() []uint32 {
	all := []uint32{p.GID}
	for _, g := range p.Groups {
		if !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	return all
}
