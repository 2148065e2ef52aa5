package audit

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"golang.org/x/sys/unix"
)

func appendErr(l *Log, p decision.Promise) error {
	e := sample(1)
	return l.Append(context.Background(), &e, p)
}

// TestFailedSync: one failed fsync is the end, even if the next one succeeds.
func TestFailedSync(t *testing.T) {
	sys := realSystem()
	var fail atomic.Bool
	sys.sync = func(f *os.File) error {
		if fail.Swap(false) {
			return unix.EIO
		}
		return f.Sync()
	}
	l := mustOpen(t, t.TempDir(), testOptions(), sys)
	mustAppend(t, l, sample(0), decision.Durable)
	fail.Store(true)
	if err := appendErr(l, decision.Durable); !errors.Is(err, errBroken) || !errors.Is(err, unix.EIO) {
		t.Errorf("the event of the failed fsync: %v", err)
	}
	for _, p := range []decision.Promise{decision.Appended, decision.Durable} {
		if err := appendErr(l, p); !errors.Is(err, errBroken) {
			t.Errorf("promise %d after it: %v", p, err)
		}
	}
	if err := l.Health(); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "restart varveld") {
		t.Errorf("health: %v", err)
	}
	if err := l.Close(); !errors.Is(err, errBroken) {
		t.Errorf("close: %v", err)
	}
}

func TestWriteFaults(t *testing.T) {
	half := func(f *os.File, b []byte, at int64) (int, error) { return f.WriteAt(b[:len(b)/2], at) }
	for _, tt := range []struct {
		name   string
		write  func(f *os.File, b []byte, at int64) (int, error)
		want   error // nil: no error
		breaks bool
	}{
		{"short writes are continued", func(f *os.File, b []byte, at int64) (int, error) { return f.WriteAt(b[:(len(b)+1)/2], at) }, nil, false},
		{"disk full in the middle", func(f *os.File, b []byte, at int64) (int, error) {
			n, _ := half(f, b, at)
			return n, unix.ENOSPC
		}, errFull, false},
		{"quota", func(f *os.File, b []byte, at int64) (int, error) { return 0, unix.EDQUOT }, errFull, false},
		{"I/O error", func(f *os.File, b []byte, at int64) (int, error) {
			n, _ := half(f, b, at)
			return n, unix.EIO
		}, unix.EIO, true},
		{"nothing written", func(f *os.File, b []byte, at int64) (int, error) { return 0, nil }, errBroken, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sys := realSystem()
			real, fault := sys.write, atomic.Bool{}
			sys.write = func(f *os.File, b []byte, at int64) (int, error) {
				if fault.Load() {
					return tt.write(f, b, at)
				}
				return real(f, b, at)
			}
			dir := t.TempDir()
			l := mustOpen(t, dir, testOptions(), sys)
			mustAppend(t, l, sample(0), decision.Appended)
			fault.Store(true)
			if err := appendErr(l, decision.Appended); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			fault.Store(false)
			if err := appendErr(l, decision.Appended); errors.Is(err, errBroken) != tt.breaks || (err != nil) != tt.breaks {
				t.Errorf("after it: %v", err)
			}
			l.Close()
			if _, err := Verify(dir); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPartOfBatch writes three events at once, of which two fit.
func TestPartOfBatch(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), realSystem())
	mustClose(t, l)
	o := testOptions()
	var batch []*request
	for i := range 3 {
		e := sample(i)
		e.V = Version
		payload, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, &request{payload: payload, done: make(chan error, 1), time: time.Now()})
	}
	sys := realSystem()
	l = newLog(dir, o, sys, nil)
	r, err := findEnd(dir, o.Boot)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.takeUp(r); err != nil {
		t.Fatal(err)
	}
	l.sys.write = func(f *os.File, b []byte, at int64) (int, error) {
		n, _ := f.WriteAt(b[:len(b)-10], at)
		return n, unix.ENOSPC
	}
	l.writer.write(batch)
	for i, want := range []error{nil, nil, errFull} {
		if err := <-batch[i].done; !errors.Is(err, want) {
			t.Errorf("event %d: %v", i, err)
		}
	}
	if got := collect(t, dir, Filter{}); len(got) != 2 {
		t.Errorf("%d events", len(got))
	}
	l.commit.commit(true)
	l.writer.seg.file.Close()
	l.spare.close()
}

func TestRemovedFile(t *testing.T) {
	for name, p := range map[string]decision.Promise{"appended": decision.Appended, "durable": decision.Durable} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := mustOpen(t, dir, testOptions(), realSystem())
			mustAppend(t, l, sample(0), p)
			if err := os.Remove(segmentName(dir, 1)); err != nil {
				t.Fatal(err)
			}
			if err := appendErr(l, p); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "removed it") {
				t.Error(err)
			}
		})
	}
}

func TestMovedFile(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), realSystem())
	if err := os.Rename(segmentName(dir, 1), segmentName(dir, 1)+".bak"); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, sample(0), decision.Durable)
	if err := l.Close(); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "moved away") {
		t.Errorf("close: %v", err)
	}
}

// TestHungDisk: a caller does not wait longer than the deadline, those who
// come later are refused at once, and the log goes on when the disk does.
func TestHungDisk(t *testing.T) {
	for _, hang := range []string{"write", "sync"} {
		t.Run(hang, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) { checkHungDisk(t, dir, hang) })
		})
	}
}

func checkHungDisk(t *testing.T, dir, hang string) {
	sys, release := realSystem(), make(chan struct{})
	var hung atomic.Bool
	wait := func(what string) {
		if what == hang && hung.Load() {
			<-release
		}
	}
	real := sys
	sys.write = func(f *os.File, b []byte, at int64) (int, error) { wait("write"); return real.write(f, b, at) }
	sys.sync = func(f *os.File) error { wait("sync"); return real.sync(f) }
	l := mustOpen(t, dir, testOptions(), sys)
	hung.Store(true)
	if err := appendErr(l, decision.Durable); !errors.Is(err, errStalled) || !strings.Contains(err.Error(), "may be in the log") {
		t.Errorf("deadline: %v", err)
	}
	time.Sleep(time.Second)
	checkRefusedWhileHung(t, l, hang)
	hung.Store(false)
	close(release)
	synctest.Wait()
	mustAppend(t, l, sample(2), decision.Durable)
	if err := l.Health(); err != nil {
		t.Errorf("health afterwards: %v", err)
	}
	mustClose(t, l)
}

func checkRefusedWhileHung(t *testing.T, l *Log, hang string) {
	t.Helper()
	if err := l.Health(); !errors.Is(err, errStalled) {
		t.Errorf("health: %v", err)
	}
	if err := appendErr(l, decision.Durable); !errors.Is(err, errStalled) {
		t.Errorf("durable: %v", err)
	}
	if err := appendErr(l, decision.Appended); (err != nil) != (hang == "write") {
		t.Errorf("appended while %s hangs: %v", hang, err)
	}
}

// TestContextEnds: a caller whose context ends before the writer had time for
// its event withdraws it.
func TestContextEnds(t *testing.T) {
	sys, entered, release := realSystem(), make(chan struct{}), make(chan struct{})
	var hung atomic.Bool
	sys.write = func(f *os.File, b []byte, at int64) (int, error) {
		if hung.Swap(false) {
			close(entered)
			<-release
		}
		return f.WriteAt(b, at)
	}
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), sys)
	hung.Store(true)
	first := make(chan error)
	go func() { first <- appendErr(l, decision.Appended) }()
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error)
	go func() {
		e := sample(2)
		second <- l.Append(ctx, &e, decision.Appended)
	}()
	for l.queue.length() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not written") {
		t.Errorf("second: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("first: %v", err)
	}
	mustClose(t, l)
	if got := collect(t, dir, Filter{}); len(got) != 1 {
		t.Errorf("%d events, want 1", len(got))
	}
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	for range maxQueued {
		if err := q.push(&request{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.push(&request{}); !errors.Is(err, errQueue) {
		t.Errorf("too many: %v", err)
	}
	q = newQueue()
	if err := q.push(&request{payload: make([]byte, maxQueueBytes+1)}); !errors.Is(err, errQueue) {
		t.Errorf("too large: %v", err)
	}
}
