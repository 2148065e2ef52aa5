package broker_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/broker"
)

// TestRestoredTokensAreListed until they expire or their run ends, and are not
// handed out.
func TestRestoredTokensAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		now := time.Now()
		b.Restore([]broker.Listed{
			{Run: "run_1", Tool: "ledger", Audience: "x", Expires: now.Add(time.Minute)},
			{Run: "run_2", Tool: "ledger", Audience: "x", Expires: now.Add(time.Hour)},
			{Run: "run_3", Tool: "ledger", Audience: "x", Expires: now.Add(time.Hour)},
			{Run: "run_1", Tool: "old", Audience: "x", Expires: now.Add(-time.Second)},
		})
		if got := b.List(); len(got) != 3 || b.Leases() != 3 {
			t.Fatalf("listed: %+v", got)
		}
		if _, err := b.Token(t.Context(), run("run_2"), ledger()); err != nil || w.minted.Load() != 1 {
			t.Errorf("a token of a run with a restored one: %v, %d mints", err, w.minted.Load())
		}
		b.Revoke("run_3")
		time.Sleep(2 * time.Minute)
		got := b.List()
		if len(got) == 0 || got[0].Run != "run_2" {
			t.Errorf("after a minute and an end: %+v", got)
		}
		for _, l := range got {
			if l.Run != "run_2" {
				t.Errorf("listed: %+v", l)
			}
		}
	})
}
