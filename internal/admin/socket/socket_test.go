package socket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/testutil"
)

func TestMain(m *testing.M) { testutil.Main(m) }

func listenAt(t *testing.T, path string) *Listener {
	t.Helper()
	l, err := Listen(path, strconv.Itoa(os.Getgid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l := listenAt(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("a second daemon: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first daemon does not answer any more: %v", err)
	}
	c.Close()
	if l.Addr().String() != path {
		t.Errorf("address: %s", l.Addr())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != "admin.sock.lock" {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	next := listenAt(t, path)
	if err := l.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	if c, err = net.Dial("unix", next.Addr().String()); err != nil {
		t.Fatalf("the next daemon lost its socket: %v", err)
	}
	c.Close()
}

// TestStale takes the place of a socket whose daemon is dead, and of no other.
func TestStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if _, err := Listen(path, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("a daemon that has no lock but answers: %v", err)
	}
	old.Close()
	listenAt(t, path)
}

// TestCloseLeavesOthers does not remove what somebody else has put there.
func TestCloseLeavesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l := listenAt(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the file of somebody else is gone: %v", err)
	}
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	tests := []struct{ name, path, group, want string }{
		{"no directory", filepath.Join(dir, "none", "s"), "", "no such file"},
		{"no such group", filepath.Join(dir, "s"), "no-such-group", "groupadd"},
		{"too long", filepath.Join(dir, strings.Repeat("x", 120)), "", "too long"},
	}
	for _, tt := range tests {
		if _, err := Listen(tt.path, tt.group); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
