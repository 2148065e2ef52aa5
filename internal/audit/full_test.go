package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
	"golang.org/x/sys/unix"
)

// fillReserve appends until the log takes nothing more. It returns how many
// events were taken after the first Durable one was refused.
func fillReserve(t *testing.T, l *Log) (appended int) {
	t.Helper()
	for range 1 << 16 {
		err := appendErr(l, decision.Durable)
		if err == nil {
			continue
		}
		if !errors.Is(err, errLow) && !errors.Is(err, errFull) {
			t.Fatalf("durable: %v", err)
		}
		if err = appendErr(l, decision.Appended); err == nil {
			appended++
			continue
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("appended: %v", err)
		}
		return appended
	}
	t.Fatal("the disk never got full")
	return 0
}

// checkFull expects that Durable events were refused while there was about one
// segment of reserve for the others, and that the log is whole.
func checkFull(t *testing.T, l *Log, appended int) {
	t.Helper()
	if low := int(l.opts.Reserve / 1024); appended < low {
		t.Errorf("only %d events were appended out of the reserve, want at least %d", appended, low)
	}
	if err := l.Health(); !OutOfSpace(err) {
		t.Errorf("health: %v", err)
	}
	if _, err := Verify(l.Dir()); err != nil {
		t.Error(err)
	}
}

func TestMaxSize(t *testing.T) {
	o := testOptions()
	o.MaxSize = 4 * minSegmentSize
	l := mustOpen(t, t.TempDir(), o, realSystem())
	checkFull(t, l, fillReserve(t, l))
	if err := l.Health(); !strings.Contains(err.Error(), "raise audit.max_size") {
		t.Error(err)
	}
	if used := diskUse(t, l.Dir()); used > o.MaxSize {
		t.Errorf("%d bytes in segments, %d allowed", used, o.MaxSize)
	}
	mustClose(t, l)
	// A new start does not give the reserve away.
	l = mustOpen(t, l.Dir(), o, realSystem())
	if err := appendErr(l, decision.Durable); !errors.Is(err, errLow) && !errors.Is(err, errFull) {
		t.Errorf("durable after a new start: %v", err)
	}
}

func diskUse(t *testing.T, dir string) (sum int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	return sum
}

// TestFullDisk fills a real, small file system.
func TestFullDisk(t *testing.T) {
	mount := smallTmpfs(t)
	o := testOptions()
	o.FlushInterval = time.Millisecond // the spare is tried again at once
	l := mustOpen(t, filepath.Join(mount, "audit"), o, realSystem())
	ballast := filepath.Join(mount, "ballast")
	write(t, ballast, make([]byte, 256<<10))
	checkFull(t, l, fillReserve(t, l))
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for appendErr(l, decision.Durable) != nil {
		time.Sleep(time.Millisecond)
	}
	if err := l.Health(); err != nil {
		t.Errorf("after there is space again: %v", err)
	}
	mustClose(t, l)
	if _, err := Verify(l.Dir()); err != nil {
		t.Error(err)
	}
}

func TestOpenOnFullDisk(t *testing.T) {
	mount := smallTmpfs(t)
	write(t, filepath.Join(mount, "ballast"), make([]byte, 900<<10))
	_, err := Open(filepath.Join(mount, "audit"), testOptions())
	if !errors.Is(err, errFull) || !strings.Contains(err.Error(), "free disk space") {
		t.Error(err)
	}
}

// smallTmpfs mounts a file system of 1 MiB, which needs root.
func smallTmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root; TestReserve does the same with an injected error")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs is not allowed here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestReserve is TestFullDisk without a full disk.
func TestReserve(t *testing.T) {
	sys := realSystem()
	calls := 0 // all from one goroutine at a time: spare.making
	sys.allocate = func(f *os.File, size int64) error {
		if calls++; calls > 3 {
			return unix.ENOSPC
		}
		return allocate(f, size)
	}
	sys.write = func(f *os.File, b []byte, at int64) (int, error) {
		if at+int64(len(b)) > minSegmentSize {
			return 0, unix.ENOSPC
		}
		return f.WriteAt(b, at)
	}
	l := mustOpen(t, t.TempDir(), testOptions(), sys)
	checkFull(t, l, fillReserve(t, l))
}

func TestNoFallocate(t *testing.T) {
	sys := realSystem()
	sys.allocate = func(*os.File, int64) error { return unix.EOPNOTSUPP }
	if _, err := open(t.TempDir(), testOptions(), sys); err == nil || !strings.Contains(err.Error(), "put state_dir on") {
		t.Error(err)
	}
}
