package broker_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/varvel/varvel/internal/broker"
)

const canary = "canary-3b9d-secret"

type holder struct {
	Exported broker.Secret
	hidden   broker.Secret
	pointer  *broker.Secret
}

// TestSecretDoesNotShow tries every way by which values usually leak.
func TestSecretDoesNotShow(t *testing.T) {
	s := broker.NewSecret(canary)
	h := holder{s, s, &s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%08.3f", "%!"} {
		for _, v := range []any{s, &s, h, &h, []broker.Secret{s}, map[string]broker.Secret{"a": s}, map[string]any{"a": h}, errors.New(fmt.Sprint(s))} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, handler := range []slog.Handler{
		slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}),
		slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}),
	} {
		slog.New(handler).Info("message", "secret", s, "pointer", &s, "holder", h, "group", slog.GroupValue(slog.Any("s", s)))
	}
	for _, v := range []any{s, &s, h, map[string]broker.Secret{"a": s}} {
		j, _ := json.Marshal(v)
		x, _ := xml.Marshal(v)
		y, _ := yaml.Marshal(v)
		var g bytes.Buffer
		_ = gob.NewEncoder(&g).Encode(v)
		fmt.Fprintf(&out, "%s%s%s%s", j, x, y, g.Bytes())
	}
	hex := fmt.Sprintf("%x", canary)
	if text := out.String(); strings.Contains(text, canary) || strings.Contains(strings.ToLower(text), hex) {
		t.Errorf("the secret shows: %s", text)
	}
	if !strings.Contains(out.String(), broker.Redacted) {
		t.Error("nothing says that something was left out")
	}
	if s.Reveal() != canary {
		t.Error("control: Reveal does not reveal")
	}
}

func TestSecretComparison(t *testing.T) {
	if reflect.TypeFor[broker.Secret]().Comparable() {
		t.Error("secrets can be compared with ==")
	}
	a, b, zero := broker.NewSecret("a"), broker.NewSecret("b"), broker.Secret{}
	if !a.Equal(broker.NewSecret("a")) || a.Equal(b) || a.Equal(zero) || !zero.Equal(broker.NewSecret("")) {
		t.Error("Equal is wrong")
	}
	if !zero.Empty() || a.Empty() || a.Hash() == b.Hash() || a.Hash() != "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" {
		t.Error("Empty or Hash is wrong")
	}
}
