package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/kernel/measure"
)

// worker carries out operations inside or outside a run, on one thread that stays
// on one CPU.
type worker struct {
	lists []measure.Sockaddrs
	net   *client
	held  []int // descriptors of connections

	listener int // descriptor; 0: none yet
}

// Work is a worker process. It reads orders until its input ends.
func Work(in io.Reader, out io.Writer, cpu int) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	if err := pin(cpu); err != nil {
		return err
	}
	w := &worker{net: newClient()}
	return newConversation(in, out).Serve(w.do)
}

func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("stay on CPU %d: %w", cpu, err)
	}
	return nil
}

func (w *worker) do(o order) ([]float64, error) {
	switch o.Op {
	case "load":
		raw, err := os.ReadFile(o.File)
		w.lists = append(w.lists, raw)
		return nil, err
	case "connect_udp":
		return w.connectUDP(o)
	case "connect_tcp":
		return w.each(o, connectTCP)
	case "listen":
		return w.listen()
	case "dial":
		return dialNS(o)
	case "clear":
		return w.clear(o)
	case "exec":
		return perOp(o.N, familyClock, func() error { return execTrue(o.N) })
	}
	return w.act(o)
}

// each gives an operation its part of a list.
func (w *worker) each(o order, do func(measure.Sockaddrs) error) ([]float64, error) {
	if o.List >= len(w.lists) || o.Offset+o.N > w.lists[o.List].Len() {
		return nil, fmt.Errorf("no addresses %d to %d in list %d", o.Offset, o.Offset+o.N, o.List)
	}
	to := w.lists[o.List].Slice(o.Offset, o.N)
	return perOp(o.N, threadClock, func() error { return do(to) })
}

// connectUDP connects a fresh socket to one address after the other. A socket
// for each batch, because where the kernel happens to put it makes a difference.
func (w *worker) connectUDP(o order) ([]float64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a UDP socket: %w", err)
	}
	defer unix.Close(fd)
	warm := o
	warm.N = o.N / 8
	warm.Offset = (o.Offset + listLength/2) % (listLength - o.N)
	connect := func(to measure.Sockaddrs) error { return measure.Connect(fd, to) }
	if _, err := w.each(warm, connect); err != nil {
		return nil, err
	}
	return w.each(o, connect)
}

// perOp returns the nanoseconds of one of n operations by a clock.
func perOp(n int, clock func() (time.Duration, error), do func() error) ([]float64, error) {
	begin, err := clock()
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	end, err := clock()
	return []float64{float64(end-begin) / float64(n)}, err
}

// threadClock is the CPU time of this thread, in user mode and in the kernel: it
// stands still while somebody else has the CPU (clock_gettime(2)).
func threadClock() (time.Duration, error) { return clockTime(unix.CLOCK_THREAD_CPUTIME_ID) }

func wallClock() (time.Duration, error) { return clockTime(unix.CLOCK_MONOTONIC) }

// familyClock is threadClock and the CPU time of all children that have ended
// (getrusage(2)).
func familyClock() (time.Duration, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &ru); err != nil {
		return 0, fmt.Errorf("ask for the children's CPU time: %w", err)
	}
	own, err := threadClock()
	return own + time.Duration(ru.Utime.Nano()+ru.Stime.Nano()), err
}

func clockTime(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// connectTCP connects to each address and closes with a reset, so that no port
// stays in TIME_WAIT (socket(7), SO_LINGER).
func connectTCP(to measure.Sockaddrs) error {
	for i := range to.Len() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("make a TCP socket: %w", err)
		}
		if err := measure.Connect(fd, to.Slice(i, 1)); err != nil {
			return fmt.Errorf("connect number %d: %w", i, err)
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// execTrue starts /bin/true n times and waits for each.
func execTrue(n int) error {
	for range n {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err != nil {
			return err
		}
		if _, err := p.Wait(); err != nil {
			return err
		}
	}
	return nil
}
