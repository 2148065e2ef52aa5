// Package socket makes a unix socket that only the right users can reach, in
// one step, and never takes one away from a daemon that is alive.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is returned, wrapped, when another daemon has the socket.
var ErrBusy = errors.New("another daemon has the socket")

// maxPath is the longest path of a unix socket, in bytes (unix(7): sun_path has
// 108 with the final zero).
const maxPath = 107

// Listener is a listening unix socket that removes its file when it is closed.
type Listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	lock *os.File

	once sync.Once
	err  error // of the first Close
}

// Listen makes the socket at path, with mode 0660 and the given group; "" is
// the group of this process. The directory must exist. A file that a dead
// daemon has left there is replaced. Returns an error that wraps ErrBusy if
// another daemon lives.
func Listen(path, group string) (*Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	l, err := listen(path, gid)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	l.lock = lock
	return l, nil
}

// listen makes the socket in a private directory beside path and renames it to
// path when it has its owner and mode. The caller has the lock.
func listen(path string, gid int) (*Listener, error) {
	if err := checkFree(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w; create the directory first", path, err)
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "s")
	if len(temp) > maxPath || len(path) > maxPath {
		return nil, fmt.Errorf("the path of the socket %s is too long; choose one of at most %d bytes", path, maxPath-len("/.s4294967295/s"))
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	info, err := place(temp, path, gid)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &Listener{UnixListener: ln, path: path, info: info}, nil
}

func place(temp, path string, gid int) (fs.FileInfo, error) {
	if err := os.Lchown(temp, -1, gid); err != nil {
		return nil, fmt.Errorf("give the socket %s to group %d: %w", path, gid, err)
	}
	if err := os.Chmod(temp, 0o660); err != nil {
		return nil, fmt.Errorf("set the mode of the socket %s: %w", path, err)
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return nil, fmt.Errorf("make the socket %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, fmt.Errorf("put the socket in place: %w", err)
	}
	return info, nil
}

// Addr returns where the socket can be reached.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close stops listening and removes the file, if it is still this one's. Only
// the first call does something: afterwards the file may be another daemon's.
func (l *Listener) Close() error {
	l.once.Do(func() { l.err = l.close() })
	return l.err
}

func (l *Listener) close() error {
	err := l.UnixListener.Close()
	if info, e := os.Lstat(l.path); e == nil && os.SameFile(info, l.info) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return errors.Join(err, l.lock.Close())
}

// lockFile takes the lock that one daemon holds for as long as it lives. The
// file stays: to remove it would let two daemons lock two files.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the socket: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("%w: %s is locked; stop the other varveld first", ErrBusy, path)
	case err != nil:
		err = fmt.Errorf("lock %s: %w", path, err)
	default:
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

// checkFree refuses a path where somebody answers, or where there is something
// that is not a socket.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket; move it away", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		return errors.Join(fmt.Errorf("%w: somebody answers at %s; stop the other varveld first", ErrBusy, path), c.Close())
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("%w: %s cannot be told to be free: %w", ErrBusy, path, err)
}

// groupID returns the id of a group by name or number; -1 for "".
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		if n, e := strconv.ParseUint(group, 10, 31); e == nil {
			return int(n), nil
		}
		return 0, fmt.Errorf("group %q of the socket is not known on this node; create it with: groupadd --system %s", group, group)
	}
	return strconv.Atoi(g.Gid)
}
