package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// peers are the other ends of connections.
type peers struct {
	address string
	opened  chan error // nil for each connection that was accepted
	reset   chan error // nil for each that ended by a reset
}

// acceptPeers accepts connections until ctx ends.
func acceptPeers(ctx context.Context) (*peers, error) {
	l, err := net.Listen("tcp4", nodeAddress+":0")
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	p := &peers{l.Addr().String(), make(chan error, 8192), make(chan error, 8192)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // ctx has ended
			}
			p.opened <- nil
			go func() {
				defer c.Close()
				_, err := io.Copy(io.Discard, c)
				if errors.Is(err, unix.ECONNRESET) {
					err = nil
				} else {
					err = fmt.Errorf("a peer's connection ended without a reset: %w", err)
				}
				p.reset <- err
			}()
		}
	}()
	return p, nil
}

// await waits for n connections.
func (p *peers) await(ctx context.Context, what chan error, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for i := range n {
		select {
		case err := <-what:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("%d of %d connections: %w", i, n, ctx.Err())
		}
	}
	return nil
}
