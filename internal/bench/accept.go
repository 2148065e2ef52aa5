package bench

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens the worker's listener on loopback, once, and returns its port.
func (w *worker) listen() ([]float64, error) {
	if w.listener == 0 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("make a listener: %w", err)
		}
		w.listener = fd
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return nil, err
		}
		if err := unix.Listen(fd, tcpBatch); err != nil {
			return nil, err
		}
	}
	at, err := unix.Getsockname(w.listener)
	if err != nil {
		return nil, err
	}
	return []float64{float64(at.(*unix.SockaddrInet4).Port)}, nil
}

// dialNS is connecting n times from this worker to another's listener: the
// handshake, with what the other's hooks cost, is done before connect returns. The
// connections stay in the listener's queue; clear takes them out.
func dialNS(o order) ([]float64, error) {
	to := unix.SockaddrInet4{Port: o.Offset, Addr: [4]byte{127, 0, 0, 1}}
	fds := make([]int, o.N)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("make a TCP socket: %w", err)
		}
		defer closeHard(fd)
		fds[i] = fd
	}
	return perOp(o.N, wallClock, func() error {
		for _, fd := range fds {
			if err := unix.Connect(fd, &to); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		}
		return nil
	})
}

// clear accepts and closes what waits.
func (w *worker) clear(o order) ([]float64, error) {
	begin := time.Now()
	for range o.N {
		fd, _, err := unix.Accept4(w.listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("accept: %w", err)
		}
		closeHard(fd)
	}
	return []float64{float64(time.Since(begin).Nanoseconds()) / float64(o.N)}, nil
}

// closeHard closes with a reset, so that nothing waits for its time.
func closeHard(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}
