package hostnet

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/varvel/varvel/internal/testutil"
)

// TestCutEndsWhatWasAccepted: also what the program has not taken from the queue.
func TestCutEndsWhatWasAccepted(t *testing.T) {
	for _, address := range []string{"tcp4 127.0.0.1:0", "tcp6 [::1]:0", "tcp [::]:0"} {
		cg := testutil.NewCgroup(t)
		h := hold(t, cg, "listen "+address)
		at := h.next(t)
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil { // it is accepted
			t.Fatal(err)
		}
		all, err := Sockets(cg.ID)
		if err != nil {
			t.Fatal(err)
		}
		end := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, c)
			end <- err
		}()
		n, err := Cut(cg.ID, Socket.Connected)
		if err != nil || n != 1 {
			t.Fatalf("%s: cut %d, %v; want 1 of %+v", address, n, err, all)
		}
		if err := await(t, end); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the peer: %v, want ECONNRESET", address, err)
		}
	}
}
