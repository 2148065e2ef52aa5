package approval

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// compactAt is the size in bytes at which a journal is written anew, if that
// makes it much smaller.
const compactAt = 4 << 20

// journal is the file of the store: one record a transition, each the whole
// approval as it is then. Its user serialises the calls.
type journal struct {
	dir     *os.File // holds the lock
	path    string
	file    *os.File
	size    int64
	base    int64 // size when it was written anew
	damaged bool  // what is at the end of the file is not known
	sync    func(*os.File) error
}

// openJournal locks the directory, which it makes if need be, and reads the
// journal in it. sync makes a file durable.
func openJournal(path string, sync func(*os.File) error) (*journal, contents, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, contents{}, fmt.Errorf("approval journal: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, contents{}, fmt.Errorf("approval journal: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, contents{}, fmt.Errorf("approval journal in %s is in use; stop the other daemon first: %w", path, err)
	}
	j := &journal{dir: dir, path: filepath.Join(path, "journal"), damaged: true, sync: sync}
	data, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, contents{}, errors.Join(fmt.Errorf("approval journal: %w", err), j.close())
	}
	kept, err := parse(data)
	if err != nil {
		err = fmt.Errorf("approval journal %s: %w; move the file away to start without it: what waits must then be asked for again, and the audit log tells what was started", j.path, err)
		return nil, contents{}, errors.Join(err, j.close())
	}
	return j, kept, nil
}

// append adds a and makes it durable. If the file is damaged or large, it is
// first written anew with what is in force.
func (j *journal) append(a Approval, inForce func() []Approval) error {
	if j.damaged || j.size > compactAt && j.size > 2*j.base {
		if err := j.rewrite(inForce()); err != nil {
			return err
		}
	}
	line, err := record(a)
	if err != nil {
		return err
	}
	j.damaged = true
	if _, err := j.file.Write(line); err != nil {
		return fmt.Errorf("write %s: %w", j.path, err)
	}
	if err := j.sync(j.file); err != nil {
		return fmt.Errorf("sync %s: %w", j.path, err)
	}
	j.damaged = false
	j.size += int64(len(line))
	return nil
}

// rewrite replaces the file by one with the given approvals, at once: after a
// crash there is the old file or the new one.
func (j *journal) rewrite(list []Approval) error {
	j.damaged = true
	var buf bytes.Buffer
	for _, a := range list {
		line, err := record(a)
		if err != nil {
			return err
		}
		buf.Write(line)
	}
	file, err := j.replace(buf.Bytes())
	if err != nil {
		return fmt.Errorf("approval journal cannot be written anew: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.damaged = file, false
	j.size, j.base = int64(buf.Len()), int64(buf.Len())
	return nil
}

// replace writes a new file beside the journal and renames it onto it.
func (j *journal) replace(data []byte) (_ *os.File, err error) {
	next := j.path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(next)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	if err := j.sync(f); err != nil {
		return nil, err
	}
	if err := os.Rename(next, j.path); err != nil {
		return nil, err
	}
	return f, j.sync(j.dir)
}

// close releases the lock.
func (j *journal) close() error {
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	return errors.Join(err, j.dir.Close())
}
