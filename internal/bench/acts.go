package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// act carries out orders of which each is one hook's or one layer's.
func (w *worker) act(o order) ([]float64, error) {
	switch o.Op {
	case "udp_sendto":
		return sendDatagrams(o, false)
	case "udp_send":
		return sendDatagrams(o, true)
	case "accept":
		return acceptOwn(o.N)
	case "fork":
		return perOp(o.N, familyClock, func() error { return repeatedly(o.N, fork) })
	case "open":
		return perOp(o.N, threadClock, func() error { return repeatedly(o.N, func() error { return openOnce(o.File) }) })
	case "exec_rate":
		return execRate(o.N)
	case "refused":
		return connectRate(o, unix.EPERM)
	case "let through":
		return connectRate(o, nil)
	case "hold":
		return nil, w.hold(o)
	case "drop":
		return nil, w.drop()
	}
	return w.net.do(o)
}

func sendtoOrder() order {
	return order{Op: "udp_sendto", Address: net.JoinHostPort(worldAddress, strconv.Itoa(portDatagrams)), N: 512}
}

func sendOrder() order {
	o := sendtoOrder()
	o.Op = "udp_send"
	return o
}

func acceptOrder() order { return order{Op: "accept", N: 64} }
func forkOrder() order   { return order{Op: "fork", N: 10} }

// openOrder opens a file that every program may read.
func openOrder() order { return order{Op: "open", File: "/usr/bin/true", N: 1024} }

func repeatedly(n int, do func() error) error {
	for i := range n {
		if err := do(); err != nil {
			return fmt.Errorf("number %d of %d: %w", i, n, err)
		}
	}
	return nil
}

// sockaddr reads an IPv4 address and port.
func sockaddr(address string) (*unix.SockaddrInet4, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, nil
}

// sendDatagrams sends N datagrams of 64 bytes on one socket, which is connected
// or names the destination each time. An eighth as many before warm up.
func sendDatagrams(o order, connected bool) ([]float64, error) {
	to, err := sockaddr(o.Address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a UDP socket: %w", err)
	}
	defer unix.Close(fd)
	payload := make([]byte, 64)
	once := func() error { return unix.Sendto(fd, payload, 0, to) }
	if connected {
		if err := unix.Connect(fd, to); err != nil {
			return nil, err
		}
		once = func() error {
			_, err := unix.Write(fd, payload)
			return err
		}
	}
	if err := repeatedly(o.N/8, once); err != nil {
		return nil, err
	}
	return perOp(o.N, threadClock, func() error { return repeatedly(o.N, once) })
}

// acceptOwn listens on loopback, and connects to itself, accepts and resets the
// connection n times: a run can accept from nobody else.
func acceptOwn(n int) ([]float64, error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a TCP socket: %w", err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	if err := unix.Listen(l, 16); err != nil {
		return nil, err
	}
	self, err := unix.Getsockname(l)
	if err != nil {
		return nil, err
	}
	return perOp(n, threadClock, func() error { return repeatedly(n, func() error { return acceptOnce(l, self) }) })
}

func acceptOnce(l int, self unix.Sockaddr) error {
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	if err := unix.Connect(c, self); err != nil {
		return fmt.Errorf("connect to oneself: %w", err)
	}
	s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	// A reset leaves no port in TIME_WAIT (socket(7), SO_LINGER).
	err = unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	return errors.Join(err, unix.Close(s))
}

// fork makes a process that ends at once, and waits for it. It is not a thread
// and shares no memory, as fork(2).
func fork() error {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		// Only this thread is in the child: nothing of Go's may be called here.
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(int(pid), &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case !status.Exited() || status.ExitStatus() != 0:
			return fmt.Errorf("the child ended with status %#x", status)
		}
		return nil
	}
}

func openOnce(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: file, Err: err}
	}
	return unix.Close(fd)
}

// execRate executes true n times. The figure is how often a second.
func execRate(n int) ([]float64, error) {
	begin := time.Now()
	if err := execTrue(n); err != nil {
		return nil, err
	}
	return []float64{float64(n) / time.Since(begin).Seconds()}, nil
}

// connectRate connects a UDP socket N times, at ports from Offset on if that is
// not 0, and wants the same answer each time. The figure is how often a second.
func connectRate(o order, want error) ([]float64, error) {
	to, err := sockaddr(o.Address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a UDP socket: %w", err)
	}
	defer unix.Close(fd)
	begin := time.Now()
	for i := range o.N {
		if o.Offset != 0 {
			to.Port = o.Offset + i
		}
		if err := unix.Connect(fd, to); !errors.Is(err, want) {
			return nil, fmt.Errorf("connect to %s: %v, want %v", o.Address, err, want)
		}
	}
	return []float64{float64(o.N) / time.Since(begin).Seconds()}, nil
}

// hold opens N TCP connections and keeps them until it is told to drop them.
func (w *worker) hold(o order) error {
	to, err := sockaddr(o.Address)
	if err != nil {
		return err
	}
	return repeatedly(o.N, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		w.held = append(w.held, fd)
		return unix.Connect(fd, to)
	})
}

func (w *worker) drop() error {
	var errs []error
	for _, fd := range w.held {
		errs = append(errs, unix.Close(fd))
	}
	w.held = nil
	return errors.Join(errs...)
}
