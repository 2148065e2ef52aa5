package issuer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

const (
	keySuffix  = ".key.json"
	maxKeyFile = 16 << 10 // bytes; a P-256 key takes about 400
	maxKeys    = 64
)

// store keeps keys as files, one for each, in a directory that is the
// daemon's alone.
type store struct {
	dir string
	uid int
}

// openStore makes dir if it is missing and refuses one that others may enter.
func openStore(dir string, uid int) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the signing keys: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the directory of the signing keys: %w", err)
	}
	if err := private(info, os.ModeDir, uid); err != nil {
		return nil, fmt.Errorf("directory of the signing keys %s: %w; make it mode 0700 and the daemon's own, or replace the keys if somebody else could read them", dir, err)
	}
	return &store{dir: dir, uid: uid}, nil
}

// private refuses what is of another type than want, another user's, or open
// to group or others.
func private(info os.FileInfo, want os.FileMode, uid int) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Type() != want:
		return fmt.Errorf("has file type %s", info.Mode().Type())
	case !ok || int(stat.Uid) != uid:
		return fmt.Errorf("is not owned by user %d", uid)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("has mode %04o, which lets others in", info.Mode().Perm())
	}
	return nil
}

// load reads all keys, oldest first. One bad file is an error: a key that is
// left out would make valid tokens fail, and nobody would know why.
func (s *store) load() ([]key, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+keySuffix))
	if err != nil {
		return nil, fmt.Errorf("list signing keys: %w", err)
	}
	if len(names) > maxKeys {
		return nil, fmt.Errorf("%s holds %d signing keys, more than %d; remove those that are not needed", s.dir, len(names), maxKeys)
	}
	keys := make([]key, 0, len(names))
	for _, name := range names {
		k, err := s.read(name)
		if err != nil {
			return nil, fmt.Errorf("signing key %s: %w; restore or remove the file", name, err)
		}
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].active.Before(keys[j].active) })
	return keys, nil
}

// read checks the file that it has open, not the name, so that there is no
// time between the check and the use.
func (s *store) read(name string) (key, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return key{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return key{}, err
	}
	if err := private(info, 0, s.uid); err != nil {
		return key{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return key{}, err
	}
	k, err := decodeKey(data)
	if err != nil {
		return key{}, err
	}
	if s.path(k) != name {
		return key{}, errors.New("file name does not fit the key in it")
	}
	return k, nil
}

func (s *store) path(k key) string { return filepath.Join(s.dir, k.id+keySuffix) }

// save writes a key beside its place, syncs it, and renames it, so that a key
// is there as a whole or not at all, also after a power loss.
func (s *store) save(k key) error {
	data, err := k.encode()
	if err != nil {
		return fmt.Errorf("encode signing key: %w", err)
	}
	f, err := os.CreateTemp(s.dir, "new-*") // mode 0600 (os.CreateTemp)
	if err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	defer os.Remove(f.Name()) // gone already if the rename worked
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	if err := os.Rename(f.Name(), s.path(k)); err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	return s.sync()
}

// remove forgets a key whose tokens are dead.
func (s *store) remove(k key) error {
	if err := os.Remove(s.path(k)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old signing key: %w", err)
	}
	return s.sync()
}

// sweep removes what an interrupted save left behind.
func (s *store) sweep() error {
	names, err := filepath.Glob(filepath.Join(s.dir, "new-*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, keySuffix) {
			err = errors.Join(err, os.Remove(name))
		}
	}
	return err
}

func (s *store) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync the directory of the signing keys: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
