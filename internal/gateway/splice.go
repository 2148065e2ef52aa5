package gateway

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
)

// copyBoth copies between a workload and its upstream until both directions
// have ended, one has failed, or ctx ends. The end of one direction is passed
// on by closing that half only. first goes to the upstream before the rest.
func copyBoth(ctx context.Context, workload, upstream *net.TCPConn, first []byte) (sent, received int64, err error) {
	both := func() { _ = workload.Close(); _ = upstream.Close() }
	stop := context.AfterFunc(ctx, both)
	defer stop()
	n := 0
	if len(first) > 0 {
		if n, err = upstream.Write(first); err != nil {
			return int64(n), 0, err
		}
	}
	var up, down error
	var wait sync.WaitGroup
	wait.Go(func() {
		sent, up = copyHalf(upstream, workload)
		if up != nil {
			both()
		}
	})
	wait.Go(func() {
		received, down = copyHalf(workload, upstream)
		if down != nil {
			both()
		}
	})
	wait.Wait()
	return sent + int64(n), received, firstCause(up, down)
}

// copyHalf copies until src ends. ReadFrom of a *net.TCPConn uses splice(2)
// when src is one too, so the bytes never enter user space.
func copyHalf(dst, src *net.TCPConn) (int64, error) {
	n, err := dst.ReadFrom(src)
	if err != nil {
		return n, err
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) { // ENOTCONN: dst was faster
		return n, err
	}
	return n, nil
}

// firstCause prefers the failure to the "use of closed connection" that it
// leads to on the other side.
func firstCause(a, b error) error {
	if a == nil || errors.Is(a, net.ErrClosed) && b != nil {
		return b
	}
	return a
}
