package tool

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/gowebpki/jcs"
)

// Seal computes the tool's Revision: "sha256:" and the hex SHA-256 of the
// definition as canonical JSON (RFC 8785). Where the definition is written, and
// the Revision itself, are not part of it.
func (t *Tool) Seal() error {
	definition := *t
	definition.Revision = ""
	raw, err := json.Marshal(definition)
	if err != nil {
		return fmt.Errorf("encode tool %s: %w", t.Name, err)
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return fmt.Errorf("canonicalise tool %s: %w", t.Name, err)
	}
	sum := sha256.Sum256(canonical)
	t.Revision = "sha256:" + hex.EncodeToString(sum[:])
	return nil
}
