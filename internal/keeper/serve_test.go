package keeper

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inProcess serves in this process, for peers that trusted says.
func inProcess(t *testing.T, adjust func(*server)) (socket string, ended chan error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "keeper.sock")
	fd, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(fd, func(unix.Ucred) bool { return true })
	if adjust != nil {
		adjust(s)
	}
	ended = make(chan error, 1)
	go func() { ended <- s.serve() }()
	t.Cleanup(func() {
		c, err := dial(socket)
		if err != nil {
			return // it has ended
		}
		defer c.close()
		if err := c.quit(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return socket, ended
}

func mustDial(t *testing.T, socket string) *conn {
	t.Helper()
	c, err := dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// pipe returns a pipe as plain descriptors.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// atEnd reports whether nobody holds the other end of a pipe any more.
func atEnd(r *os.File) bool {
	raw, _ := r.SyscallConn()
	end := false
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(fds, 0)
		end = n > 0 && fds[0].Revents&unix.POLLHUP != 0
	})
	return end
}

func TestWhatIsPutIsListedAndDropped(t *testing.T) {
	socket, _ := inProcess(t, nil)
	c := mustDial(t, socket)
	r, w := pipe(t)
	if err := c.put("a/w", int(w.Fd()), int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if atEnd(r) {
		t.Fatal("the keeper does not hold the pipe")
	}
	found, err := mustDial(t, socket).list()
	if err != nil || len(found) != 1 || len(found["a/w"]) != 2 {
		t.Fatal(found, err)
	}
	if _, err := unix.Write(found["a/w"][1], []byte("hello")); err != nil {
		t.Fatal(err)
	}
	closeFDs(found["a/w"])
	buf := make([]byte, 5)
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "hello" {
		t.Fatal(string(buf), err)
	}
	if atEnd(r) {
		t.Error("the keeper has let go without being told")
	}
	if err := c.drop("a/w"); err != nil {
		t.Fatal(err)
	}
	if !atEnd(r) {
		t.Error("the keeper holds on to what was dropped")
	}
	if err := c.drop("a/w"); err != nil {
		t.Errorf("dropping nothing: %v", err)
	}
}

func TestPutReplaces(t *testing.T) {
	socket, _ := inProcess(t, nil)
	c := mustDial(t, socket)
	r1, w1 := pipe(t)
	r2, w2 := pipe(t)
	if err := errors.Join(c.put("x", int(w1.Fd())), c.put("x", int(w2.Fd()))); err != nil {
		t.Fatal(err)
	}
	w1.Close()
	w2.Close()
	if !atEnd(r1) || atEnd(r2) {
		t.Errorf("the first is gone: %v, the second: %v", atEnd(r1), atEnd(r2))
	}
}

func TestAKeeperHasBounds(t *testing.T) {
	socket, _ := inProcess(t, func(s *server) { s.names, s.most = 2, 5 })
	c := mustDial(t, socket)
	r, w := pipe(t)
	fd := int(w.Fd())
	if err := errors.Join(c.put("a", fd, fd), c.put("b", fd, fd)); err != nil {
		t.Fatal(err)
	}
	if err := c.put("c", fd); !errors.Is(err, ErrFull) {
		t.Errorf("a third name: %v", err)
	}
	if err := c.put("a", fd, fd, fd, fd); !errors.Is(err, ErrFull) {
		t.Errorf("six descriptors: %v", err)
	}
	if err := c.put("a", fd, fd, fd); err != nil {
		t.Errorf("five descriptors: %v", err)
	}
	if err := errors.Join(c.drop("a"), c.put("c", fd)); err != nil {
		t.Errorf("after a drop: %v", err)
	}
	if err := errors.Join(c.drop("b"), c.drop("c")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if !atEnd(r) {
		t.Error("what was refused is still held")
	}
}

func TestOnlyTheDaemonIsHeard(t *testing.T) {
	heard := make(chan unix.Ucred, 2)
	var trust atomic.Bool
	defer trust.Store(true) // for the end of the test
	socket, ended := inProcess(t, func(s *server) {
		s.trusted = func(c unix.Ucred) bool { heard <- c; return trust.Load() }
	})
	c := mustDial(t, socket)
	if _, err := c.list(); !errors.Is(err, ErrRefused) {
		t.Errorf("somebody got the list: %v", err)
	}
	if got := <-heard; int(got.Pid) != os.Getpid() || int(got.Uid) != os.Getuid() {
		t.Errorf("the keeper judged %+v", got)
	}
	select {
	case err := <-ended:
		t.Errorf("the keeper has ended: %v", err)
	default:
	}
}

func TestAnotherVersion(t *testing.T) {
	socket, ended := inProcess(t, nil)
	c := mustDial(t, socket)
	raw := message{version: Version, op: opList}.encode()
	raw[4] = 99
	if reply := exchange(t, c, raw); reply.status != statusVersion || reply.version != Version {
		t.Errorf("the keeper answers %+v to version 99", reply)
	}
	if err := (message{version: 7, status: statusVersion}).problem(); !errors.Is(err, ErrVersion) {
		t.Errorf("that it is of another version is %v", err)
	}
	// Quit is obeyed whatever the version, and whatever follows the header.
	raw = message{version: 99, op: opQuit}.encode()
	if reply := exchange(t, c, raw[:headerSize]); reply.op != opQuit || reply.status != statusOK {
		t.Errorf("the keeper answers %+v", reply)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// exchange sends bytes and reads one answer.
func exchange(t *testing.T, c *conn, raw []byte) message {
	t.Helper()
	if _, err := c.c.Write(raw); err != nil {
		t.Fatal(err)
	}
	reply, fds, err := c.receive()
	closeFDs(fds)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// TestGarbage sends what no daemon sends, with descriptors. What it holds it
// goes on holding, and nothing else.
func TestGarbage(t *testing.T) {
	socket, ended := inProcess(t, nil)
	c := mustDial(t, socket)
	kept, w := pipe(t)
	if err := c.put("kept", int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r, extra := pipe(t)
	rights := unix.UnixRights(int(extra.Fd()))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		raw := message{version: Version, op: op(random.IntN(4)), status: status(random.IntN(7)), name: fmt.Sprint(i)}.encode()
		for range random.IntN(4) {
			raw[random.IntN(len(raw))] = byte(random.IntN(256))
		}
		raw = raw[:random.IntN(len(raw)+1)]
		if len(raw) >= headerSize && op(raw[6]) == opQuit {
			continue
		}
		g, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
		for errors.Is(err, unix.EAGAIN) { // the keeper is behind
			time.Sleep(time.Millisecond)
			g, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
		}
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = g.WriteMsgUnix(raw, rights, nil)
		g.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("the keeper has ended: %v", err)
	default:
	}
	extra.Close()
	for deadline := time.Now().Add(20 * time.Second); !atEnd(r); { // it takes one message after the other
		if time.Now().After(deadline) {
			t.Fatal("the keeper holds a descriptor of garbage")
		}
		dropAllBut(t, c, "kept") // some of the messages were sound
	}
	if atEnd(kept) {
		t.Error("garbage made the keeper let go")
	}
}

func dropAllBut(t *testing.T, c *conn, but string) {
	t.Helper()
	found, err := c.list()
	if err != nil {
		t.Fatal(err)
	}
	for name, fds := range found {
		closeFDs(fds)
		if name != but {
			if err := c.drop(name); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestManyDescriptorsAreListed(t *testing.T) {
	socket, _ := inProcess(t, nil)
	c := mustDial(t, socket)
	_, w := pipe(t)
	const many = 300
	for i := range many {
		if err := c.put(fmt.Sprintf("run/%d", i), int(w.Fd())); err != nil {
			t.Fatal(err)
		}
	}
	found, err := c.list()
	if err != nil || len(found) != many {
		t.Fatalf("%d names, %v", len(found), err)
	}
	for _, fds := range found {
		closeFDs(fds)
	}
}

func BenchmarkPutAndDrop(b *testing.B) {
	socket := filepath.Join(b.TempDir(), "keeper.sock")
	fd, err := listen(socket)
	if err != nil {
		b.Fatal(err)
	}
	s := newServer(fd, func(unix.Ucred) bool { return true })
	ended := make(chan error, 1)
	go func() { ended <- s.serve() }()
	c, err := dial(socket)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := errors.Join(c.put("run/x", 0, 1, 2), c.drop("run/x")); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(c.quit(), <-ended); err != nil {
		b.Fatal(err)
	}
	c.close()
}
