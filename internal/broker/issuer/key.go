package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// key is one signing key and the time from which it signs.
type key struct {
	id      string // its RFC 7638 thumbprint
	private *ecdsa.PrivateKey
	created time.Time // when it was first published
	active  time.Time // when it begins to sign
}

// keyFile is how a key is kept on disk.
type keyFile struct {
	Created time.Time       `json:"created"`
	Active  time.Time       `json:"active"`
	Key     jose.JSONWebKey `json:"key"`
}

// newKey makes a P-256 key, the curve of ES256 (RFC 7518 section 3.4).
func newKey(created, active time.Time) (key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return key{}, fmt.Errorf("generate signing key: %w", err)
	}
	id, err := thumbprint(private)
	if err != nil {
		return key{}, err
	}
	return key{id: id, private: private, created: created, active: active}, nil
}

func thumbprint(private *ecdsa.PrivateKey) (string, error) {
	sum, err := (&jose.JSONWebKey{Key: private.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("thumbprint of signing key: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// public is the key as the JWKS shows it.
func (k key) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"}
}

func (k key) encode() ([]byte, error) {
	jwk := jose.JSONWebKey{Key: k.private, KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"}
	return json.Marshal(keyFile{Created: k.created, Active: k.active, Key: jwk})
}

// decodeKey reads what encode wrote. Errors do not quote the content.
func decodeKey(data []byte) (key, error) {
	var f keyFile
	if err := json.Unmarshal(data, &f); err != nil {
		return key{}, errors.New("not a signing key in JSON")
	}
	private, ok := f.Key.Key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return key{}, errors.New("not a private P-256 key")
	}
	id, err := thumbprint(private)
	if err != nil {
		return key{}, err
	}
	if id != f.Key.KeyID || f.Active.IsZero() || f.Created.IsZero() {
		return key{}, errors.New("key id or times do not fit the key")
	}
	return key{id: id, private: private, created: f.Created, active: f.Active}, nil
}
