package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a keeper may take for one message. It has nothing else
// to do.
const patience = 10 * time.Second

// conn is a conversation with a keeper. It is safe for concurrent use. After an
// error that is none of this package's it is of no use any more.
type conn struct {
	mu sync.Mutex
	c  *net.UnixConn
}

// dial finds the keeper at a socket. Returns ErrNone if nobody answers.
func dial(socket string) (*conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w on %s", ErrNone, socket)
	case err != nil:
		return nil, fmt.Errorf("reach the keeper: %w", err)
	}
	if err := checkPeer(c); err != nil {
		c.Close()
		return nil, err
	}
	return &conn{c: c}, nil
}

// checkPeer makes sure that root listens.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, inner); err != nil {
		return fmt.Errorf("ask who the keeper is: %w", err)
	}
	if int(cred.Uid) != unix.Geteuid() {
		return fmt.Errorf("user %d listens in the keeper's place", cred.Uid)
	}
	return nil
}

func (c *conn) close() { c.c.Close() }

// put has descriptors held under a name.
func (c *conn) put(name string, fds ...int) error {
	if !validName(name) || len(fds) == 0 || len(fds) > MaxDescriptors {
		return fmt.Errorf("%q with %d descriptors cannot be kept", name, len(fds))
	}
	return c.ask(message{op: opPut, name: name}, fds...)
}

// drop has what a name holds closed. A name that is not there is fine.
func (c *conn) drop(name string) error { return c.ask(message{op: opDrop, name: name}) }

// quit ends the keeper, of whatever version.
func (c *conn) quit() error { return c.ask(message{op: opQuit}) }

// ask sends a question and takes its one answer.
func (c *conn) ask(m message, fds ...int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(m, fds); err != nil {
		return err
	}
	reply, fds, err := c.receive()
	closeFDs(fds)
	if err != nil {
		return err
	}
	return reply.problem()
}

// list returns what the keeper holds. The descriptors are the caller's.
func (c *conn) list() (map[string][]int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.send(message{op: opList}, nil); err != nil {
		return nil, err
	}
	found := map[string][]int{}
	for {
		m, fds, err := c.receive()
		if err == nil && m.status == statusItem && m.name != "" && len(fds) > 0 && found[m.name] == nil {
			found[m.name] = fds
			continue
		}
		closeFDs(fds)
		if err == nil {
			err = m.problem()
		}
		if err != nil {
			for _, fds := range found {
				closeFDs(fds)
			}
			return nil, err
		}
		return found, nil
	}
}

func (c *conn) send(m message, fds []int) error {
	m.version = Version
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	c.c.SetDeadline(time.Now().Add(patience))
	// A keeper that refuses this process says so and hangs up: hear it.
	if _, _, err := c.c.WriteMsgUnix(m.encode(), rights, nil); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("tell the keeper: %w", err)
	}
	return nil
}

func (c *conn) receive() (message, []int, error) {
	var raw [messageSize + 1]byte
	oob := make([]byte, unix.CmsgSpace(4*MaxDescriptors))
	n, oobn, flags, _, err := c.c.ReadMsgUnix(raw[:], oob)
	if errors.Is(err, unix.ECONNRESET) { // it hung up before it heard us; what it said is still there
		n, oobn, flags, _, err = c.c.ReadMsgUnix(raw[:], oob)
	}
	fds := descriptors(oob[:max(oobn, 0)])
	switch {
	case err != nil:
		return message{}, fds, fmt.Errorf("hear the keeper: %w", err)
	case n == 0:
		return message{}, fds, fmt.Errorf("hear the keeper: %w", io.ErrUnexpectedEOF)
	case flags&unix.MSG_CTRUNC != 0:
		return message{}, fds, errors.New("hear the keeper: this process cannot take more descriptors; raise its limit (LimitNOFILE=)")
	}
	m, err := decode(raw[:n])
	return m, fds, err
}

// gone returns when the keeper has ended, or ctx has. Nobody else may use c
// meanwhile.
func (c *conn) gone(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { c.close() })()
	c.c.SetDeadline(time.Time{})
	_, _, _, _, _ = c.c.ReadMsgUnix(make([]byte, 1), nil)
}

// withFDs calls do with the descriptors of conns, which stay open meanwhile.
func withFDs(conns []syscall.RawConn, do func([]int) error) error { return collectFDs(conns, nil, do) }

func collectFDs(conns []syscall.RawConn, fds []int, do func([]int) error) error {
	if len(conns) == 0 {
		return do(fds)
	}
	var inner error
	err := conns[0].Control(func(fd uintptr) { inner = collectFDs(conns[1:], append(fds, int(fd)), do) })
	return errors.Join(err, inner)
}
