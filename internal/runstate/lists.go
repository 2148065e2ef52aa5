package runstate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Name is what a run's synthetic addresses stand for.
type Name struct {
	Host   string // canonical
	V4, V6 netip.Addr
}

// Lease is a token that a run was given, without the token.
type Lease struct {
	Tool     string    `json:"tool"`
	Audience string    `json:"audience"`
	Expires  time.Time `json:"expires"`
	Decision string    `json:"decision"` // under which it was minted
	Hash     string    `json:"hash"`     // of the token
}

// AddName keeps a name. It is called before anybody is told of its addresses.
func (s *Store) AddName(id string, n Name) error {
	return s.add(id, "names", []byte(n.V4.String()+" "+n.V6.String()+" "+n.Host))
}

// AddLease keeps a lease. It is called before the token is given to anybody.
func (s *Store) AddLease(id string, l Lease) error {
	line, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode a lease of %s: %w", id, err)
	}
	return s.add(id, "leases", line)
}

// add appends one line with one write, so that it is there as a whole or its end
// is missing.
func (s *Store) add(id, name string, line []byte) error {
	f, err := os.OpenFile(s.file(id, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the %s of %s: %w", name, id, err)
	}
	_, err = f.Write(append(line, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("keep the %s of %s: %w", name, id, err)
	}
	return nil
}

// readLines reads a file of lines. It need not be there. A last line without an
// end was cut off by a death or a full disk, and what it would say was not acted
// on: it does not count.
func readLines[T any](file string, decode func([]byte) (T, error)) ([]T, error) {
	text, err := readBounded(file, maxListFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []T
	for i, line := range bytes.SplitAfter(text, []byte{'\n'}) {
		whole, ok := bytes.CutSuffix(line, []byte{'\n'})
		if !ok {
			break
		}
		v, err := decode(whole)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", filepath.Base(file), i+1, err)
		}
		all = append(all, v)
	}
	return all, nil
}

func decodeName(line []byte) (Name, error) {
	f := strings.Split(string(line), " ")
	if len(f) != 3 || f[2] == "" || len(f[2]) > 253 {
		return Name{}, errors.New("it is not two addresses and a host")
	}
	v4, err4 := netip.ParseAddr(f[0])
	v6, err6 := netip.ParseAddr(f[1])
	if err := errors.Join(err4, err6); err != nil {
		return Name{}, err
	}
	if !v4.Is4() || !v6.Is6() || v6.Is4In6() || v6.Zone() != "" {
		return Name{}, errors.New("the addresses are not one of each family")
	}
	return Name{f[2], v4, v6}, nil
}

func decodeLease(line []byte) (Lease, error) {
	var l Lease
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return Lease{}, err
	}
	if l.Tool == "" || l.Expires.IsZero() {
		return Lease{}, errors.New("it does not say what was given")
	}
	return l, nil
}
