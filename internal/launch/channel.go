package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxDescriptors is how many descriptors one frame may carry.
const maxDescriptors = 3

// channel sends and receives frames, with descriptors, over a unix stream
// socket. Any number of goroutines may send; one receives.
//
// Descriptors are plain numbers here, not *os.File: handing an *os.File on can
// change O_NONBLOCK of the open file description, which the caller shares.
type channel struct {
	conn *net.UnixConn

	mu sync.Mutex // serialises writes, so that frames stay whole

	fds []int // received with the frame that is being read
}

// channelFromFD makes a channel of a socket's descriptor, which it takes over.
func channelFromFD(fd int) (*channel, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use descriptor %d as socket: %w", fd, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is a %s socket, not a unix one", fd, c.LocalAddr().Network())
	}
	return &channel{conn: u}, nil
}

// sendTimeout bounds how long the other side may leave what it is sent unread.
// Frames are few and small, so only a peer that is stopped or hostile does.
const sendTimeout = 10 * time.Second

// send writes one frame. The descriptors travel with its first byte; they stay
// the caller's. After an error the channel cannot be used to send any more.
func (c *channel) send(k kind, v any, fds ...int) error {
	data, err := encodeFrame(k, v)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	n, _, err := c.conn.WriteMsgUnix(data, rights, nil)
	if err == nil && n < len(data) {
		_, err = c.conn.Write(data[n:])
	}
	return err
}

// receive reads one frame and the descriptors that came with it, which the
// caller owns.
func (c *channel) receive() (frame, []int, error) {
	f, err := readFrame(descriptorReader{c})
	fds := c.fds
	c.fds = nil
	if err != nil {
		closeFDs(fds)
		return frame{}, nil, err
	}
	return f, fds, nil
}

// receivePlain is receive for frames that carry no descriptors.
func (c *channel) receivePlain() (frame, error) {
	f, fds, err := c.receive()
	closeFDs(fds)
	return f, err
}

func (c *channel) close() error { return c.conn.Close() }

// usualFrame is more than nearly all frames of a run's life have.
const usualFrame = 512

// peek returns the next frame, and its size, and leaves it in the socket until
// skip: who is killed before that has not taken it. Only a frame whose end has
// not come yet is taken at once; its size is 0.
func (c *channel) peek() (f frame, size int, err error) {
	buf := make([]byte, usualFrame)
	for {
		n, err := c.recv(buf, unix.MSG_PEEK)
		switch {
		case err != nil:
			return frame{}, 0, err
		case n == 0:
			return frame{}, 0, io.EOF
		case n < headerSize:
			return c.takeWhole()
		}
		k, length := kind(buf[0]), binary.BigEndian.Uint32(buf[1:])
		if k.limit() == 0 || length > maxBody {
			return frame{}, 0, fmt.Errorf("%w: kind %q with %d bytes", errFrame, buf[0], length)
		}
		switch size = headerSize + int(length); {
		case size > len(buf):
			buf = make([]byte, size)
		case size > n:
			return c.takeWhole()
		default:
			return frame{k, buf[headerSize:size]}, size, nil
		}
	}
}

func (c *channel) takeWhole() (frame, int, error) {
	f, err := c.receivePlain()
	return f, 0, err
}

// skip takes the frame that peek has returned, in one read.
func (c *channel) skip(size int) error {
	if size == 0 {
		return nil
	}
	n, err := c.recv(make([]byte, size), 0)
	if err == nil && n != size {
		err = fmt.Errorf("%w: %d bytes instead of %d", errFrame, n, size)
	}
	return err
}

// recv waits for data and reads once. Descriptors that come along are closed by
// the kernel.
func (c *channel) recv(buf []byte, flags int) (n int, err error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var inner error
	err = raw.Read(func(fd uintptr) bool {
		n, _, inner = unix.Recvfrom(int(fd), buf, flags|unix.MSG_DONTWAIT)
		return inner != unix.EAGAIN && inner != unix.EINTR
	})
	return n, errors.Join(err, inner)
}

// descriptorReader reads from a channel's socket and keeps what descriptors
// arrive on the way.
type descriptorReader struct{ c *channel }

// Read implements io.Reader.
func (r descriptorReader) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	n, oobn, flags, _, err := r.c.conn.ReadMsgUnix(p, oob)
	if oobn > 0 {
		fds, cerr := parseRights(oob[:oobn])
		r.c.fds = append(r.c.fds, fds...)
		if cerr != nil {
			return n, cerr
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return n, io.EOF // package net wraps it, io.ReadFull wants it bare
	case err != nil:
		return n, err
	case flags&unix.MSG_CTRUNC != 0 || len(r.c.fds) > maxDescriptors:
		return n, fmt.Errorf("%w: more than %d descriptors", errFrame, maxDescriptors)
	}
	return n, nil
}

// parseRights takes the descriptors out of control messages (unix(7),
// SCM_RIGHTS). They are close-on-exec already: Go receives with
// MSG_CMSG_CLOEXEC.
func parseRights(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, fmt.Errorf("%w: %w", errFrame, err)
		}
		all = append(all, fds...)
	}
	return all, nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
