package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a body.
const maxDepth = 16

// decodeBody reads the JSON object that is r's body into v, strictly: UTF-8, no
// unknown key, no key twice, nothing after it.
func decodeBody(r *request, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return badRequest("The body must have the content type application/json.")
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	if err := decodeStrict(b, v); err != nil {
		return badRequest("The body is not as it must be: " + err.Error() + ".")
	}
	return nil
}

func decodeStrict(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("it is not UTF-8")
	}
	if err := checkKeys(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// checkKeys refuses what encoding/json lets pass: a key twice, a key in another
// case, and bytes after the value.
func checkKeys(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("it is not a JSON object")
	}
	if err := checkObject(dec, 1); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

func checkObject(dec *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return errors.New("it is not valid JSON")
		}
		key, _ := t.(string) // a key of an object always is one
		switch {
		case seen[key]:
			return fmt.Errorf("the key %.40q is there twice", key)
		case key != strings.ToLower(key):
			return fmt.Errorf("the key %.40q is not known", key)
		}
		seen[key] = true
		if err := checkValue(dec, depth); err != nil {
			return err
		}
	}
	return closing(dec)
}

func checkValue(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	switch {
	case err != nil:
		return errors.New("it is not valid JSON")
	case t == json.Delim('{') && depth < maxDepth:
		return checkObject(dec, depth+1)
	case t == json.Delim('[') && depth < maxDepth:
		for dec.More() {
			if err := checkValue(dec, depth+1); err != nil {
				return err
			}
		}
		return closing(dec)
	case t == json.Delim('{'), t == json.Delim('['):
		return errors.New("it is nested too deeply")
	}
	return nil
}

func closing(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return errors.New("it is not valid JSON")
	}
	return nil
}
