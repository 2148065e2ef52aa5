package e2e

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLastBytes: what a command has written arrives, also if the command and
// its run are over before the other side reads.
func TestLastBytes(t *testing.T) {
	const size = 100 << 10
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": `agent: bot
egress:
  - { cidr: 192.0.2.10/32, ports: [7001] }
  - { name: exact.e2e.test, ports: [7001], opaque: true }
launch: { users: [nobody] }
`}})
	for _, tt := range []struct {
		name, target string
		host         byte
		run          bool
	}{
		{"unconfined", "tcp4/192.0.2.10:7001", hostListed, false},
		{"in a run, by address", "tcp4/192.0.2.10:7001", hostListed, true},
		{"in a run, by name", "tcp4/exact.e2e.test:7001", hostNamed, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := n.with(t)
			over := make(chan struct{})
			got := n.slowReader(tt.host, over)
			argv := []string{bin("client"), "act", "push", strconv.Itoa(size), tt.target}
			if tt.run {
				argv = n.run("bot", argv...)
			}
			n.must(alice, argv...)
			n.eventually("the run is over", func() bool { return len(n.runIDs()) == 0 })
			close(over)
			select {
			case read := <-got:
				if read != size {
					t.Errorf("%d bytes arrived, not %d", read, size)
				}
			case <-time.After(15 * time.Second):
				t.Error("not even the connection arrived")
			}
		})
	}
}

// slowReader accepts one connection at a machine, and reads it once it may. It
// answers how many bytes came before the end.
func (n *node) slowReader(host byte, may <-chan struct{}) <-chan int64 {
	n.t.Helper()
	got := make(chan int64, 2)
	// A small window, so that most of what was written waits in the sender's kernel.
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) }), err)
	}}
	for _, a := range []netip.Addr{v4(host), v6(host)} {
		var l net.Listener
		err := n.world.Do(func() (err error) {
			l, err = small.Listen(n.t.Context(), "tcp", netip.AddrPortFrom(a, 7001).String())
			return err
		})
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { l.Close() })
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			<-may
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			read, _ := io.Copy(io.Discard, conn)
			got <- read
		}()
	}
	return got
}
