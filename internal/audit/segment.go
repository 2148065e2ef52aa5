package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	segmentSuffix = ".wal"
	spareName     = "spare"
)

// system holds what the log asks of the kernel, so that tests can make it fail.
type system struct {
	write    func(f *os.File, b []byte, offset int64) (int, error)
	sync     func(f *os.File) error
	allocate func(f *os.File, size int64) error
	links    func(f *os.File) (uint64, error)
}

func realSystem() system {
	return system{
		write:    func(f *os.File, b []byte, offset int64) (int, error) { return f.WriteAt(b, offset) },
		sync:     func(f *os.File) error { return f.Sync() },
		allocate: allocate,
		links:    links,
	}
}

// allocate reserves blocks for the first size bytes of f without changing its
// length (fallocate(2), FALLOC_FL_KEEP_SIZE). It asks first whether there is
// enough, so that trying on a full disk takes nothing from others.
func allocate(f *os.File, size int64) error {
	if fits, err := hasRoom(f, size); err != nil || !fits {
		return errors.Join(err, unix.ENOSPC)
	}
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// hasRoom reports whether the file system of f has blocks for the first size
// bytes of f that f does not have yet. A tmpfs without a limit says that it has
// no blocks at all (tmpfs(5)), and has room.
func hasRoom(f *os.File, size int64) (bool, error) {
	var fsys unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &fsys), unix.Fstat(int(f.Fd()), &st)); err != nil {
		return false, err
	}
	free := int64(fsys.Bfree) * fsys.Bsize
	return fsys.Blocks == 0 || free >= size-st.Blocks*512, nil
}

// links returns how many names f has; 0 means that it was removed.
func links(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return uint64(st.Nlink), nil
}

// segment is one file that the log writes to. The writer owns the fields below
// name; the committer uses the file and the name only.
type segment struct {
	file *os.File
	name string

	size  int64 // bytes written
	room  int64 // bytes from the beginning on that are reserved on disk
	times times
}

func segmentName(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", first, segmentSuffix))
}

// segments returns the first sequence numbers of the segments in dir, in order.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list audit log: %w", err)
	}
	var out []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && len(digits) == 20 {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// openSpare makes the file that will be the next segment, with size bytes
// reserved for it, or takes up the one that is left from before.
func openSpare(dir string, size int64, sys system) (*segment, error) {
	name := filepath.Join(dir, spareName)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the next audit segment: %w", err)
	}
	if err := reserve(f, size, sys); err != nil {
		// What a failed reservation may have got goes back to the machine.
		return nil, explainAllocate(dir, size, errors.Join(err, f.Close(), os.Remove(name)))
	}
	return &segment{file: f, name: name, room: size}, nil
}

// reserve empties f, should a crash have left something in it, and reserves
// its blocks. Truncating an empty file would free them (ext4_setattr).
func reserve(f *os.File, size int64, sys system) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > 0 {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	return sys.allocate(f, size)
}

func explainAllocate(dir string, size int64, err error) error {
	switch {
	case isFull(err):
		return fmt.Errorf("%w: %d bytes could not be reserved in %s; free disk space: %w", errFull, size, dir, err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the file system of %s cannot reserve disk space; put state_dir on ext4, xfs, btrfs or tmpfs: %w", dir, err)
	}
	return fmt.Errorf("reserve %d bytes in %s: %w", size, dir, err)
}

// isFull reports whether err says that there is no space, for now.
func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// isAt reports whether name still leads to f.
func isAt(f *os.File, name string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, there), err
}
