package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/gowebpki/jcs"
	"github.com/varvel/varvel/internal/decision"
)

// encode returns the canonical JSON of e: what is hashed and stored. The
// fields that the frame and the segment's header hold are left out. The order
// of the struct's fields and encoding/json's way with maps and numbers make it
// RFC 8785 already; only its escapes for U+2028, U+2029 and bytes that are not
// UTF-8 differ, and are rare enough to take the long way.
func encode(e Event) ([]byte, error) {
	e.Seq, e.Prev, e.Hash, e.Node, e.Boot = 0, Hash{}, Hash{}, "", ""
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("encode audit event: %w", err)
	}
	b := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	if bytes.Contains(b, []byte(`\u202`)) || bytes.Contains(b, []byte(`\ufffd`)) {
		var err error
		if b, err = jcs.Transform(b); err != nil {
			return nil, fmt.Errorf("make audit event canonical: %w", err)
		}
	}
	if len(b) > MaxEvent {
		return nil, fmt.Errorf("audit event of kind %s has %d bytes, and %d are the limit", e.Kind, len(b), MaxEvent)
	}
	return b, nil
}

// decode is the opposite of encode. A field that this version does not know is
// an error, and so is a newer version.
func decode(payload []byte) (Event, error) {
	var e Event
	err := decodeStrict(payload, &e)
	if err == nil && e.V >= 1 && e.V <= Version {
		return e, nil
	}
	var version struct {
		V int `json:"v"`
	}
	if json.Unmarshal(payload, &version) == nil && (version.V < 1 || version.V > Version) {
		return Event{}, fmt.Errorf("audit event has schema version %d, and this program knows up to %d; read it with a newer one", version.V, Version)
	}
	return Event{}, fmt.Errorf("decode audit event: %w", err)
}

func decodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the end of the JSON value")
	}
	return nil
}

// check refuses an event whose words are not of the schema.
func check(e *Event) error {
	switch {
	case !e.Kind.Known():
		return fmt.Errorf("audit event has the unknown kind %.80q", e.Kind)
	case e.Kind == KindApproval && !slices.Contains(ApprovalActivities(), e.Activity):
		return fmt.Errorf("audit event of an approval has the unknown activity %.80q", e.Activity)
	case !knownEffect(e.Effect), !knownEffect(e.Would):
		return fmt.Errorf("audit event of kind %s has an effect that is none of allow, deny and hold", e.Kind)
	}
	return nil
}

func knownEffect(f decision.Effect) bool {
	switch f {
	case "", decision.EffectAllow, decision.EffectDeny, decision.EffectHold:
		return true
	}
	return false
}
