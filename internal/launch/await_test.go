package launch

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAwaitEnd: those who wait are parked in Go's poller, which takes no thread,
// and go on when their child has ended. It is still there to be reaped.
func TestAwaitEnd(t *testing.T) {
	const children = 20
	ended := make(chan int, children)
	var commands []*exec.Cmd
	var inputs []io.Closer
	for i := range children {
		cmd := exec.Command("sh", "-c", "cat; exit 7")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		commands, inputs = append(commands, cmd), append(inputs, in)
		fd, err := unix.PidfdOpen(cmd.Process.Pid, unix.PIDFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		pidfd := os.NewFile(uintptr(fd), "child")
		t.Cleanup(func() { pidfd.Close() })
		go func() {
			awaitEnd(pidfd)
			ended <- i
		}()
	}
	deadline := time.Now().Add(20 * time.Second)
	for parked() != children {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d are parked", parked(), children)
		}
		time.Sleep(time.Millisecond)
	}
	for i, in := range inputs {
		in.Close()
		if got := <-ended; got != i {
			t.Fatalf("number %d was told to have ended, and %d has", got, i)
		}
		_ = commands[i].Wait()
		if code := commands[i].ProcessState.ExitCode(); code != 7 {
			t.Errorf("number %d: exit code %d", i, code)
		}
	}
}

// parked is how many goroutines wait in awaitEnd for the poller.
func parked() int {
	buf := make([]byte, 1<<20)
	n := 0
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if head, stack, _ := strings.Cut(g, "\n"); strings.Contains(head, "[IO wait") && strings.Contains(stack, "launch.awaitEnd(") {
			n++
		}
	}
	return n
}
