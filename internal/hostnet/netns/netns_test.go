package netns

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/testutil"
)

func TestMain(m *testing.M) { testutil.Main(m) }

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Error(err)
	}
	return st.Ino
}

// other is a namespace that no thread of the test has entered.
func other(t *testing.T) *os.File {
	t.Helper()
	testutil.RequireRoot(t)
	var f *os.File
	done := make(chan error, 1)
	go onThread(done, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestInTouchesNobody: whatever thread a call comes upon, the process stays where
// it is.
func TestInTouchesNobody(t *testing.T) {
	ns := other(t)
	before := inode(t, "/proc/self/ns/net")
	var group sync.WaitGroup
	for range 500 {
		group.Go(func() {
			var inside uint64
			err := In(ns, func() error {
				inside = inode(t, "/proc/thread-self/ns/net")
				time.Sleep(time.Millisecond) // so that many threads are needed
				return nil
			})
			if err != nil || inside == before {
				t.Errorf("inside: %d, %v; outside it is %d", inside, err, before)
			}
		})
	}
	group.Wait()
	if after := inode(t, "/proc/self/ns/net"); after != before {
		t.Errorf("the process is in %d now, and was in %d", after, before)
	}
}

func TestErrors(t *testing.T) {
	ns := other(t)
	want := errors.New("mine")
	if err := In(ns, func() error { return want }); err != want {
		t.Errorf("the error of the function: %v", err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	called := false
	if err := In(null, func() error { called = true; return nil }); !errors.Is(err, unix.EINVAL) || called {
		t.Errorf("a handle that is no namespace: %v, called: %v", err, called)
	}
}
