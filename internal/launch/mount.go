package launch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// quiet are the flags of mounts that hold no programs and no devices.
const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mount is mount(2) with an error that says what failed.
func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// place is an object in the file system, held by descriptor, so that it stays
// the same object whatever happens to its name.
type place struct {
	fd   int
	name string
	stat unix.Stat_t
}

// findPlace opens name. It follows symbolic links: what matters is what the
// name leads to. The error of a name that leads nowhere is fs.ErrNotExist.
func findPlace(name string) (*place, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP || err == unix.ENAMETOOLONG {
		err = unix.ENOENT // it cannot be reached by that name, by nobody
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	p := &place{fd: fd, name: name}
	if err := unix.Fstat(fd, &p.stat); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return p, nil
}

func (p *place) close() { unix.Close(p.fd) }

// path returns a name that leads to exactly this object (proc_pid_fd(5)).
func (p *place) path() string { return "/proc/self/fd/" + strconv.Itoa(p.fd) }

func (p *place) kind() uint32 { return p.stat.Mode & unix.S_IFMT }

// bind mounts source, with what is mounted below, over the place.
func (p *place) bind(source string) error {
	if err := unix.Mount(source, p.path(), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s over %s: %w", source, p.name, err)
	}
	return nil
}

// readOnly makes the object at name, with all that is mounted below, read-only.
// What is not there is nothing to protect.
func readOnly(name string) error {
	p, err := findPlace(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.bind(p.path()); err != nil {
		return err
	}
	return setReadOnly(name)
}

// setReadOnly changes the mount at name and all below it.
func setReadOnly(name string) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, name, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", name, err)
	}
	return nil
}

// mountPoint is a line of /proc/PID/mountinfo.
type mountPoint struct {
	path   string
	fstype string
}

// readMounts parses /proc/PID/mountinfo (proc_pid_mountinfo(5)): a mount's
// place is field 5, its type the first field after a lone "-".
func readMounts(r io.Reader) ([]mountPoint, error) {
	var mounts []mountPoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		if !ok || len(fields) < 6 {
			return nil, fmt.Errorf("mountinfo has a line that is not understood: %q", lines.Text())
		}
		fstype, _, _ := strings.Cut(right, " ")
		mounts = append(mounts, mountPoint{unescapeOctal(fields[4]), fstype})
	}
	return mounts, lines.Err()
}

// unescapeOctal undoes the kernel's escapes of blanks, as \040.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
