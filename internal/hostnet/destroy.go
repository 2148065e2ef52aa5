package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// sockDestroy is SOCK_DESTROY (include/uapi/linux/sock_diag.h). The library's own
// function speaks it for IPv4 only.
const sockDestroy = 21

// batch is how many sockets are destroyed by one send. The kernel works through
// a send before it returns; the answers to this many fit into a socket's buffer.
const batch = 128

// Cut destroys those sockets of a cgroup that deny picks, in this process's
// network namespace, and returns how many there were. A program that uses one
// gets ECONNABORTED, and the peer of a TCP connection gets a reset. One that is
// gone already is fine. It needs CAP_NET_ADMIN and CONFIG_INET_DIAG_DESTROY.
func Cut(cgroupID uint64, deny func(Socket) bool) (int, error) {
	all, err := Sockets(cgroupID)
	if err != nil {
		return 0, err
	}
	var chosen []Socket
	for _, s := range all {
		if deny(s) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return 0, nil
	}
	if err := destroy(chosen); err != nil {
		return 0, fmt.Errorf("destroy the connections of a run: %w", err)
	}
	return len(chosen), nil
}

func destroy(sockets []Socket) error {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_INET_DIAG)
	if err != nil {
		return err
	}
	defer s.Close()
	var errs []error
	for start := 0; start < len(sockets); start += batch {
		some := sockets[start:min(start+batch, len(sockets))]
		if err := unix.Sendto(s.GetFd(), messages(some), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		errs = append(errs, answers(s.GetFd(), some))
	}
	return errors.Join(errs...)
}

// messages puts one request after the other (netlink(7)). They ask for no
// acknowledgement: only what failed is answered.
func messages(sockets []Socket) []byte {
	const size = unix.SizeofNlMsghdr + sizeofRequest
	var out []byte
	for i, s := range sockets {
		out = binary.NativeEndian.AppendUint32(out, size)
		out = binary.NativeEndian.AppendUint16(out, sockDestroy)
		out = binary.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST)
		out = binary.NativeEndian.AppendUint32(out, uint32(i))
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(out, request(s.family(), s.Protocol, allStates, s.id)...)
	}
	return out
}

// answers reads what the kernel has to say: nothing, if all went well.
func answers(fd int, sockets []Socket) error {
	var errs []error
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errors.Join(errs...)
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, failures(buf[:n], sockets))
	}
}

// failures reads the error messages of one datagram: a header, and the negative
// errno. A socket that is not there any more is what was wanted.
func failures(raw []byte, sockets []Socket) error {
	var errs []error
	for len(raw) >= unix.SizeofNlMsghdr+4 {
		size := int(binary.NativeEndian.Uint32(raw))
		if size < unix.SizeofNlMsghdr+4 || size > len(raw) {
			return errors.Join(append(errs, errShort)...)
		}
		which, errno := binary.NativeEndian.Uint32(raw[8:]), unix.Errno(-int32(binary.NativeEndian.Uint32(raw[16:])))
		if errno != 0 && errno != unix.ENOENT && int(which) < len(sockets) {
			errs = append(errs, fmt.Errorf("%s to %s: %w", sockets[which].Local, sockets[which].Remote, explain(errno)))
		}
		raw = raw[min((size+3)&^3, len(raw)):]
	}
	return errors.Join(errs...)
}

// explain adds what an operator can do.
func explain(errno unix.Errno) error {
	switch errno {
	case unix.EOPNOTSUPP:
		return fmt.Errorf("%w: this kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY)", errno)
	case unix.EPERM:
		return fmt.Errorf("%w: CAP_NET_ADMIN is missing", errno)
	}
	return errno
}
