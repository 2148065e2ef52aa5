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
// its run are over before the other side reads. For a name, the gateway takes what
// comes within a moment after the end, and then cuts; a busy machine can miss it.
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
			read := int64(0)
			for tries := 0; read != size && (tries == 0 || tries < 5 && tt.host == hostNamed); tries++ {
				read = n.pushed(tt.target, tt.host, tt.run, size)
			}
			if read != size {
				t.Errorf("%d bytes arrived, not %d", read, size)
			}
		})
	}
}

// pushed has a command write so many bytes, to somebody who reads when it is over,
// and returns how many arrived.
func (n *node) pushed(target string, host byte, run bool, size int) int64 {
	n.t.Helper()
	over := make(chan struct{})
	got, end := n.slowReader(host, over)
	defer end()
	argv := []string{bin("client"), "act", "push", strconv.Itoa(size), target}
	if run {
		argv = n.run("bot", argv...)
	}
	n.must(alice, argv...)
	n.eventually("the run is over", func() bool { return len(n.runIDs()) == 0 })
	close(over)
	select {
	case read := <-got:
		return read
	case <-time.After(15 * time.Second):
		n.t.Error("not even the connection arrived")
		return 0
	}
}

// slowReader accepts one connection at a machine, and reads it once it may. It
// answers how many bytes came before the end.
func (n *node) slowReader(host byte, may <-chan struct{}) (_ <-chan int64, end func()) {
	n.t.Helper()
	got := make(chan int64, 2)
	// A small window, so that most of what was written waits in the sender's kernel.
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) }), err)
	}}
	var all []net.Listener
	for _, a := range []netip.Addr{v4(host), v6(host)} {
		var l net.Listener
		err := n.world.Do(func() (err error) {
			l, err = small.Listen(n.t.Context(), "tcp", netip.AddrPortFrom(a, 7001).String())
			return err
		})
		if err != nil {
			n.t.Fatal(err)
		}
		all = append(all, l)
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
	return got, func() {
		for _, l := range all {
			l.Close()
		}
	}
}
