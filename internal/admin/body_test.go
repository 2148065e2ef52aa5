package admin

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/admin/api"
)

// FuzzDecodeStrict checks that what is accepted means the same to a reader that
// is strict in another way: every key is known, and there once.
func FuzzDecodeStrict(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"reason":"x"}`, `{"reason":"x","reason":"y"}`, `{"Reason":"x"}`, `{"reason":"x"}{}`, `[]`, `{"presence":"terminal","preview_digest":"sha256:0"}`,
		`{"reason":{"a":[1,2,{"a":1,"a":2}]}}`, "{\"reason\":\"\xff\"}", strings.Repeat(`{"reason":`, 40), `{"r\u0065ason":"x","reason":"y"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v api.Vote
		if err := decodeStrict(b, &v); err != nil {
			return
		}
		var m map[string]string
		if err := json.Unmarshal(b, &m); err != nil {
			if strings.Contains(string(b), "null") {
				return
			}
			t.Fatalf("accepted %q, which is no object of strings: %v", b, err)
		}
		for key, value := range m {
			have, ok := map[string]string{"reason": v.Reason, "preview_digest": v.Preview, "presence": v.Presence}[key]
			if !ok || have != value {
				t.Errorf("%q: %q is %q, decoded as %q", b, key, value, have)
			}
		}
	})
}
