package launch

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// hostRun is what a run keeps of the host's /run. The rest of it, which is
// sockets and state of the host's services, is not there: names that services
// make anew while the run lives could not be masked.
type hostRun struct {
	files map[string][]byte // contents of the name resolver's configuration
	links map[string]string // symbolic links directly in /run
	media *place            // removable media, if there are any
}

// resolverFiles returns where the configuration of the name resolver may be,
// besides where /etc/resolv.conf leads to.
func resolverFiles() []string {
	return []string{"/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf"}
}

// maxResolverFile bounds what is copied of one; they have a few lines.
const maxResolverFile = 64 << 10

// readRun notes what is kept, before /run is mounted over.
func (l *layout) readRun() error {
	l.hostRun = hostRun{files: map[string][]byte{}, links: map[string]string{}}
	names := resolverFiles()
	if target, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil && below(target, "/run") {
		names = append(names, target)
	}
	for _, name := range names {
		if content, err := readBounded(name); err == nil {
			l.hostRun.files[name] = content
		}
	}
	entries, err := os.ReadDir("/run")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if target, err := os.Readlink("/run/" + e.Name()); err == nil {
			l.links[e.Name()] = target
		}
	}
	l.media, err = findPlace("/run/media")
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxResolverFile))
}

// makeRun mounts an empty /run and puts in it what was kept.
func (l *layout) makeRun() error {
	for _, dir := range runDirs() {
		if err := mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=16m,nr_inodes=4096"); err != nil {
			return err
		}
	}
	if err := makeDirs(map[string]os.FileMode{"/run/lock": 0o777 | os.ModeSticky, "/run/user": 0o755}); err != nil {
		return err
	}
	own := "/run/user/" + strconv.FormatUint(uint64(l.config.UID), 10)
	if err := os.Mkdir(own, 0o700); err != nil {
		return err
	}
	if err := os.Chown(own, int(l.config.UID), int(l.config.GID)); err != nil {
		return err
	}
	for name, target := range l.links {
		if err := os.Symlink(target, "/run/"+name); err != nil && !os.IsExist(err) {
			return err
		}
	}
	for name, content := range l.hostRun.files {
		if err := writeNew(name, content); err != nil {
			return err
		}
	}
	return l.keepMedia()
}

// runDirs returns /run, and /var/run where that is not a link to it.
func runDirs() []string {
	dirs := []string{"/run"}
	if info, err := os.Lstat("/var/run"); err == nil && info.IsDir() {
		dirs = append(dirs, "/var/run")
	}
	return dirs
}

func makeDirs(modes map[string]os.FileMode) error {
	for name, mode := range modes {
		if err := os.Mkdir(name, mode); err != nil {
			return err
		}
		if err := os.Chmod(name, mode); err != nil {
			return err
		}
	}
	return nil
}

func writeNew(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o644)
}

// keepMedia binds removable media back.
func (l *layout) keepMedia() error {
	if l.media == nil {
		return nil
	}
	defer l.media.close()
	if err := os.Mkdir("/run/media", 0o755); err != nil {
		return err
	}
	p, err := findPlace("/run/media")
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.bind(l.media.path()); err != nil {
		return fmt.Errorf("keep removable media: %w", err)
	}
	return nil
}
