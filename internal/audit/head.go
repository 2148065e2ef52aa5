package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const headName = "head"

// head says how far the log was durable when it was written. The chain cannot
// tell a log whose end was cut off from a shorter one; the head can.
type head struct {
	Hash Hash   `json:"hash"`
	Seq  uint64 `json:"seq"` // 0 if there is no record yet
	V    int    `json:"v"`
}

func encodeHead(h head) ([]byte, error) {
	h.V = Version
	b, err := json.Marshal(h)
	return append(b, '\n'), err
}

func decodeHead(b []byte) (head, error) {
	var h head
	if err := decodeStrict(b, &h); err != nil {
		return head{}, err
	}
	if h.V != Version {
		return head{}, fmt.Errorf("format version %d is not known", h.V)
	}
	if again, err := encodeHead(h); err != nil || !bytes.Equal(again, b) {
		return head{}, errors.New("it is not in the form in which the log writes it")
	}
	return h, nil
}

// readHead returns an error that wraps fs.ErrNotExist if there is no head.
func readHead(dir string) (head, error) {
	name := filepath.Join(dir, headName)
	b, err := os.ReadFile(name)
	if err != nil {
		return head{}, fmt.Errorf("read audit head: %w", err)
	}
	h, err := decodeHead(b)
	if err != nil {
		return head{}, &Problem{File: name, What: "the head file was changed", Expected: "the log's last sequence number and hash", Found: err.Error()}
	}
	return h, nil
}

// writeHead replaces the head file. After a crash there is the old one or the
// new one; both are true, because a log only grows.
func writeHead(dir string, h head) error {
	b, err := encodeHead(h)
	if err != nil {
		return fmt.Errorf("encode audit head: %w", err)
	}
	name := filepath.Join(dir, headName)
	if err := writeSynced(name+".tmp", b); err != nil {
		return fmt.Errorf("write audit head: %w", err)
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return fmt.Errorf("replace audit head: %w", err)
	}
	return nil
}

func writeSynced(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}
