// Package brokertest holds implementations of broker.Minter to its contract.
package brokertest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/decision"
)

// Request is a request that every minter must serve.
func Request() broker.MintRequest {
	return broker.MintRequest{
		Run:      decision.Run{ID: "run_01J00000000000000000000000", Agent: "bot", Node: "node-1", Boot: "boot-1", Mode: decision.ModeEnforce},
		Actor:    decision.Actor{Account: "spiffe://example.org/agent/bot"},
		Tool:     "ledger",
		Audience: "https://ledger.example.org",
		Lifetime: 3 * time.Minute,
	}
}

// TestMinter checks that the minters which newMinter returns do as the comment
// of broker.Minter says. now is the minter's clock.
func TestMinter(t *testing.T, newMinter func(t *testing.T) broker.Minter, now func() time.Time) {
	t.Helper()
	t.Run("token", func(t *testing.T) { testToken(t, newMinter(t), now) })
	t.Run("unique", func(t *testing.T) { testUnique(t, newMinter(t)) })
	t.Run("cancelled", func(t *testing.T) { testCancelled(t, newMinter(t)) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, newMinter(t)) })
}

func testToken(t *testing.T, m broker.Minter, now func() time.Time) {
	for _, lifetime := range []time.Duration{10 * time.Second, 3 * time.Minute, time.Hour} {
		r := Request()
		r.Lifetime = lifetime
		token, expires, err := m.Mint(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if left := expires.Sub(now()); token.Empty() || left <= 0 || left > lifetime {
			t.Errorf("lifetime %s: token empty: %v, expires in %s", lifetime, token.Empty(), left)
		}
	}
}

func testUnique(t *testing.T, m broker.Minter) {
	var mu sync.Mutex
	seen := map[string]bool{}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			token, _, err := m.Mint(t.Context(), Request())
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[token.Reveal()] {
				t.Errorf("a token came twice, or not at all: %v", err)
			}
			seen[token.Reveal()] = true
		})
	}
	wait.Wait()
}

func testCancelled(t *testing.T, m broker.Minter) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if token, _, err := m.Mint(ctx, Request()); err == nil || !token.Empty() {
		t.Errorf("minted for a cancelled context: %v", err)
	}
}

// testRefusals asks for tokens that would not say whose they are, or for whom.
func testRefusals(t *testing.T, m broker.Minter) {
	for name, spoil := range map[string]func(*broker.MintRequest){
		"no audience": func(r *broker.MintRequest) { r.Audience = "" },
		"no account":  func(r *broker.MintRequest) { r.Actor.Account = "" },
		"no run":      func(r *broker.MintRequest) { r.Run.ID = "" },
		"no lifetime": func(r *broker.MintRequest) { r.Lifetime = 0 },
		"negative":    func(r *broker.MintRequest) { r.Lifetime = -time.Minute },
	} {
		r := Request()
		spoil(&r)
		token, _, err := m.Mint(t.Context(), r)
		if err == nil || !token.Empty() {
			t.Errorf("%s: minted", name)
		} else if strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: the error looks as if it held a token", name)
		}
	}
}
