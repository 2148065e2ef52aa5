// Package runstate keeps what the next daemon has to know of the live runs, in
// files of a tmpfs: they end with the boot, as runs do.
//
// A run has a directory with run.json (who and what it is), names (which
// synthetic address means which host, one line for each name, written before the
// address is given to anybody) and leases (which tokens it was given; never a
// token). Files are read strictly: what is not as this package writes it is an
// error, and its run cannot be adopted.
package runstate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// Version is that of the files. Another version's are not read.
const Version = 1

// Stage says how far a run has come.
type Stage string

// The stages.
const (
	Starting Stage = "starting" // its command may or may not have begun
	Started  Stage = "started"  // its command has begun, and the keeper has its descriptors
)

// Run is what is kept of a run.
type Run struct {
	Version   int            `json:"version"`
	Run       decision.Run   `json:"run"` // with the boot id
	Actor     decision.Actor `json:"actor"`
	Cgroup    string         `json:"cgroup"`
	CgroupID  uint64         `json:"cgroup_id"`
	NetNS     string         `json:"netns"`     // the daemon's network namespace, as /proc/self/ns/net shows it
	Elsewhere uint64         `json:"elsewhere"` // cookie of the run's network namespace, if it is another; else 0
	Started   time.Time      `json:"started"`
	Command   []string       `json:"command"`
	Quiet     bool           `json:"quiet"` // the caller wants no summary
	Stage     Stage          `json:"stage"`
	Revoked   bool           `json:"revoked"` // it may reach nothing, whatever is configured
}

// State is all that is kept of one run.
type State struct {
	ID     string // of the run, which is the name of its directory
	Run    Run
	Names  []Name
	Leases []Lease
	Err    error // why it cannot be read; then only ID is set
}

// Limits of what is read.
const (
	maxRunFile  = 256 << 10
	maxListFile = 8 << 20
)

// Store is the directory of all runs. It is safe for concurrent use, but calls
// about one run's run.json are made one after the other.
type Store struct{ dir string }

// Open makes the directory if it is not there.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of runs: %w", err)
	}
	return &Store{dir}, nil
}

func (s *Store) file(id, name string) string { return filepath.Join(s.dir, id, name) }

// Put keeps a run, in place of what was kept of it. Who reads finds the old or
// the new text.
func (s *Store) Put(r Run) error {
	r.Version = Version
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the state of %s: %w", r.Run.ID, err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, r.Run.ID), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep the state of %s: %w", r.Run.ID, err)
	}
	file := s.file(r.Run.ID, "run.json")
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return fmt.Errorf("keep the state of %s: %w", r.Run.ID, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("keep the state of %s: %w", r.Run.ID, err)
	}
	return nil
}

// Revoke keeps it of a run that it was revoked.
func (s *Store) Revoke(id string) error {
	st, err := s.load(id)
	if err != nil {
		return fmt.Errorf("keep it that %s was revoked: %w", id, err)
	}
	st.Run.Revoked = true
	return s.Put(st.Run)
}

// Remove forgets a run.
func (s *Store) Remove(id string) error {
	if err := os.RemoveAll(filepath.Join(s.dir, id)); err != nil {
		return fmt.Errorf("forget the state of %s: %w", id, err)
	}
	return nil
}

// RemoveAll forgets every run, and the directory.
func (s *Store) RemoveAll() error { return os.RemoveAll(s.dir) }

// Load returns what is kept of all runs, in the order of their ids.
func (s *Store) Load() ([]State, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the state of runs: %w", err)
	}
	var all []State
	for _, e := range entries {
		st, err := s.load(e.Name())
		if err != nil {
			st = State{Err: err}
		}
		st.ID = e.Name()
		all = append(all, st)
	}
	return all, nil
}

func (s *Store) load(id string) (st State, err error) {
	text, err := readBounded(s.file(id, "run.json"), maxRunFile)
	if err != nil {
		return st, err
	}
	if st.Run, err = decode(text); err != nil {
		return st, fmt.Errorf("run.json: %w", err)
	}
	if st.Run.Run.ID != id {
		return st, fmt.Errorf("run.json is of %.60q", st.Run.Run.ID)
	}
	if st.Names, err = readLines(s.file(id, "names"), decodeName); err != nil {
		return st, err
	}
	st.Leases, err = readLines(s.file(id, "leases"), decodeLease)
	return st, err
}

// decode reads the text of run.json.
func decode(text []byte) (Run, error) {
	var r Run
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Run{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return Run{}, errors.New("something follows the value")
	}
	return r, r.check()
}

func (r Run) check() error {
	mode := r.Run.Mode
	switch {
	case r.Version != Version:
		return fmt.Errorf("it is of version %d, and this daemon reads %d", r.Version, Version)
	case !validID(r.Run.ID), r.Run.Agent == "", r.Run.Boot == "", r.Actor.Account == "", r.Actor.StartedBy == nil:
		return errors.New("it does not say who the run is")
	case mode != decision.ModeEnforce && mode != decision.ModeObserve:
		return fmt.Errorf("there is no mode %.20q", mode)
	case !filepath.IsAbs(r.Cgroup) || filepath.Base(r.Cgroup) != r.Run.ID || r.CgroupID == 0:
		return errors.New("it does not say in which cgroup the run is")
	case r.Stage != Starting && r.Stage != Started:
		return fmt.Errorf("there is no stage %.20q", r.Stage)
	}
	return nil
}

func validID(id string) bool {
	return strings.HasPrefix(id, "run_") && len(id) < 64 && !strings.ContainsAny(id, "/\x00.")
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", filepath.Base(name), limit)
	}
	return text, err
}
