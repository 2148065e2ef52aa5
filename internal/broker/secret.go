package broker

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every printed, logged or marshalled Secret looks like.
const Redacted = "[redacted]"

// Secret holds a credential that must not be shown. It prints, logs and
// marshals as "[redacted]", also when it sits in an unexported field that fmt
// reads by reflection; it cannot be compared with ==, and only Reveal returns
// what is inside. The zero Secret is empty.
type Secret struct {
	// A closure has nothing that reflection could follow, and a func field
	// makes the type incomparable.
	reveal func() string
}

// NewSecret hides s.
func NewSecret(s string) Secret { return Secret{reveal: func() string { return s }} }

// Reveal returns the credential itself. Its callers are the places where a
// secret leaves Varvel; there should be few, and each should be obvious.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Empty reports whether there is no credential inside.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal compares two secrets in a time that depends on their lengths only.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Hash returns "sha256:" and the hex digest of the credential. It names the
// credential in events; one with little entropy could be guessed from it, so
// it is meant for tokens.
func (s Secret) Hash() string {
	sum := sha256.Sum256([]byte(s.Reveal()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// String implements fmt.Stringer.
func (Secret) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return Redacted }

// Format implements fmt.Formatter, so that no verb gets through.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }
