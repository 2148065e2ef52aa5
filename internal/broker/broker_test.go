package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varvel/varvel/internal/broker"
	"github.com/varvel/varvel/internal/broker/brokertest"
	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/tool"
	"github.com/varvel/varvel/internal/workload"
)

// world is everything around a broker, with counts.
type world struct {
	decided, minted, recorded atomic.Int64

	mu      sync.Mutex
	effect  decision.Effect
	mintErr error
	saveErr error
	block   chan struct{} // mints wait for it, if it is not nil
	events  []broker.Mint
	asked   []decision.Request
	log     strings.Builder

	approval string
	settled  []string
}

func (w *world) Decide(_ context.Context, r decision.Request) (decision.Decision, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, r)
	return decision.Decision{ID: fmt.Sprintf("dec_%d", w.decided.Add(1)), Effect: w.effect, ApprovalID: w.approval, Reasons: []decision.Reason{{Rule: "r", Text: "Because."}}}, nil
}

func (w *world) Mint(ctx context.Context, r broker.MintRequest) (broker.Secret, time.Time, error) {
	if err := ctx.Err(); err != nil {
		return broker.Secret{}, time.Time{}, err
	}
	if r.Audience == "" || r.Actor.Account == "" || r.Run.ID == "" || r.Lifetime <= 0 {
		return broker.Secret{}, time.Time{}, errors.New("incomplete")
	}
	w.mu.Lock()
	block, err := w.block, w.mintErr
	w.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return broker.Secret{}, time.Time{}, ctx.Err()
		}
	}
	if err != nil {
		return broker.Secret{}, time.Time{}, err
	}
	return broker.NewSecret(fmt.Sprintf("%s-%s-%s-%d", canary, r.Run.ID, r.Tool, w.minted.Add(1))), time.Now().Add(r.Lifetime), nil
}

func (w *world) RecordMint(_ context.Context, m broker.Mint) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.recorded.Add(1)
	w.events = append(w.events, m)
	return w.saveErr
}

func (w *world) Settle(_ context.Context, id string, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settled = append(w.settled, fmt.Sprint(id, " ", err))
	return nil
}

func (w *world) Write(p []byte) (int, error) { // the log
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func newWorld(t *testing.T) (*world, *broker.Broker) {
	w := &world{effect: decision.EffectAllow}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b := broker.New(broker.Options{Decider: w, Minter: w, Journal: w, Settler: w, Log: log})
	t.Cleanup(b.Close)
	return w, b
}

func run(id string) *workload.Run {
	return &workload.Run{Run: decision.Run{ID: id, Agent: "bot"}, Actor: decision.Actor{Account: "spiffe://example.org/agent/bot"}}
}

func ledger() *tool.Tool {
	return &tool.Tool{Name: "ledger", Revision: "sha256:1", Credential: &tool.Credential{Issuer: tool.Issuer{Audience: "https://ledger.example.org"}}}
}

func TestFakeMinterConforms(t *testing.T) {
	brokertest.TestMinter(t, func(*testing.T) broker.Minter { return &world{} }, time.Now)
}

func TestTokenIsDecidedRecordedAndCached(t *testing.T) {
	w, b := newWorld(t)
	first, err := b.Token(t.Context(), run("run_1"), ledger())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		again, err := b.Token(t.Context(), run("run_1"), ledger())
		if err != nil || !again.Token.Equal(first.Token) {
			t.Fatalf("not from the cache: %v", err)
		}
	}
	if w.decided.Load() != 1 || w.minted.Load() != 1 || w.recorded.Load() != 1 || b.Leases() != 1 {
		t.Errorf("%d decisions, %d mints, %d records, %d leases", w.decided.Load(), w.minted.Load(), w.recorded.Load(), b.Leases())
	}
	r, e := w.asked[0], w.events[0]
	if r.Kind != decision.KindCredential || r.Credential.Audience != "https://ledger.example.org" || r.Digest == "" || r.Tool != "ledger" {
		t.Errorf("request is %+v", r)
	}
	if e.TokenHash != first.Token.Hash() || e.DecisionID != first.DecisionID || e.Run.ID != "run_1" || e.Expires != first.Expires {
		t.Errorf("event is %+v", e)
	}
	all := fmt.Sprintf("%+v %#v %+v %s", w.events, w.asked, first, w.log.String())
	if strings.Contains(all, canary) {
		t.Error("the token shows")
	}
}

func TestTokensAreApart(t *testing.T) {
	_, b := newWorld(t)
	other := ledger()
	other.Name = "docs"
	changed := ledger()
	changed.Revision = "sha256:2"
	seen := map[string]bool{}
	for _, get := range []func() (broker.Lease, error){
		func() (broker.Lease, error) { return b.Token(t.Context(), run("run_1"), ledger()) },
		func() (broker.Lease, error) { return b.Token(t.Context(), run("run_2"), ledger()) },
		func() (broker.Lease, error) { return b.Token(t.Context(), run("run_1"), other) },
		func() (broker.Lease, error) { return b.Token(t.Context(), run("run_1"), changed) },
	} {
		lease, err := get()
		if err != nil || seen[lease.Token.Reveal()] {
			t.Errorf("shared, or %v", err)
		}
		seen[lease.Token.Reveal()] = true
	}
	if b.Leases() != 3 { // the old definition's is gone
		t.Errorf("%d leases", b.Leases())
	}
}

func TestRefusals(t *testing.T) {
	for _, effect := range []decision.Effect{decision.EffectDeny, decision.EffectHold, "", "other"} {
		w, b := newWorld(t)
		w.effect = effect
		lease, err := b.Token(t.Context(), run("run_1"), ledger())
		if refused := new(broker.Refused); !errors.As(err, &refused) || !lease.Token.Empty() || w.minted.Load() != 0 {
			t.Errorf("%q: %v, %d mints", effect, err, w.minted.Load())
		}
	}
	w, b := newWorld(t)
	if _, err := b.Token(t.Context(), run("run_1"), &tool.Tool{Name: "bare"}); !errors.Is(err, broker.ErrNoCredential) {
		t.Error(err)
	}
	w.saveErr = errors.New("disk full")
	if lease, err := b.Token(t.Context(), run("run_1"), ledger()); err == nil || !lease.Token.Empty() {
		t.Error("a token that was not recorded was handed out")
	}
}

func TestApprovedMintIsSettled(t *testing.T) {
	w, b := newWorld(t)
	w.approval = "apr_1"
	if _, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.mintErr = errors.New("sealed") })
	_, _ = b.Token(t.Context(), run("run_2"), ledger())
	if len(w.settled) != 2 || w.settled[0] != "apr_1 <nil>" || !strings.Contains(w.settled[1], "sealed") {
		t.Errorf("settled as %q", w.settled)
	}
}

func TestConcurrentCallersShareOneMint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		w.block = make(chan struct{})
		impatient, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 501)
		go func() {
			_, err := b.Token(impatient, run("run_1"), ledger())
			errs <- err
		}()
		synctest.Wait()
		for range 500 {
			go func() {
				_, err := b.Token(t.Context(), run("run_1"), ledger())
				errs <- err
			}()
		}
		synctest.Wait()
		cancel() // the one who began
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("the impatient caller got %v", err)
		}
		close(w.block)
		for range 500 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if w.minted.Load() != 1 || w.decided.Load() != 1 {
			t.Errorf("%d mints, %d decisions", w.minted.Load(), w.decided.Load())
		}
	})
}

func TestFailureIsRememberedForASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		w.mintErr = errors.New("sealed")
		for range 20 {
			if _, err := b.Token(t.Context(), run("run_1"), ledger()); err == nil {
				t.Fatal("no error")
			}
		}
		if w.decided.Load() != 1 {
			t.Errorf("%d attempts in an instant", w.decided.Load())
		}
		if _, err := b.Token(t.Context(), run("run_2"), ledger()); err == nil || w.decided.Load() != 2 {
			t.Error("another run's failure was taken for this one's")
		}
		w.set(func() { w.mintErr = nil })
		time.Sleep(time.Second)
		if _, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil {
			t.Errorf("after a second: %v", err)
		}
	})
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		first, err := b.Token(t.Context(), run("run_1"), ledger())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(broker.DefaultLifetime * 59 / 100)
		if again, _ := b.Token(t.Context(), run("run_1"), ledger()); !again.Token.Equal(first.Token) {
			t.Error("renewed before 60 % of its life")
		}
		synctest.Wait()
		if w.minted.Load() != 1 {
			t.Error("a renewal began before 60 % of its life")
		}
		// The minter is down when the renewal is due: the old token serves on.
		w.set(func() { w.mintErr = errors.New("sealed") })
		time.Sleep(broker.DefaultLifetime * 22 / 100)
		if again, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil || !again.Token.Equal(first.Token) {
			t.Errorf("while renewing: %v", err)
		}
		synctest.Wait()
		w.set(func() { w.mintErr = nil })
		time.Sleep(time.Second)
		if again, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil || !again.Token.Equal(first.Token) {
			t.Errorf("the renewal was waited for: %v", err)
		}
		synctest.Wait()
		if again, _ := b.Token(t.Context(), run("run_1"), ledger()); again.Token.Equal(first.Token) {
			t.Error("not renewed")
		}
	})
}

func TestExpiredTokenIsNeverHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		if _, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.mintErr = errors.New("sealed") })
		time.Sleep(broker.DefaultLifetime)
		if lease, err := b.Token(t.Context(), run("run_1"), ledger()); err == nil || !lease.Token.Empty() || b.Leases() != 0 {
			t.Errorf("%v, %d leases", err, b.Leases())
		}
	})
}

func TestRefusedRenewalEndsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		if _, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.effect = decision.EffectDeny })
		time.Sleep(broker.DefaultLifetime * 85 / 100)
		_, _ = b.Token(t.Context(), run("run_1"), ledger()) // starts the renewal
		synctest.Wait()
		if lease, err := b.Token(t.Context(), run("run_1"), ledger()); err == nil || !lease.Token.Empty() {
			t.Error("policy said no, and the old token was handed out")
		}
	})
}

func TestRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t)
		if _, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.block = make(chan struct{}) })
		waiting := make(chan error, 1)
		go func() {
			_, err := b.Token(t.Context(), run("run_2"), ledger())
			waiting <- err
		}()
		synctest.Wait()
		b.Revoke("run_1")
		b.Revoke("run_2")
		if err := <-waiting; !errors.Is(err, broker.ErrRevoked) {
			t.Errorf("a mint under way: %v", err)
		}
		for _, id := range []string{"run_1", "run_2"} {
			if _, err := b.Token(t.Context(), run(id), ledger()); !errors.Is(err, broker.ErrRevoked) {
				t.Errorf("%s: %v", id, err)
			}
		}
		close(w.block)
		if _, err := b.Token(t.Context(), run("run_3"), ledger()); err != nil {
			t.Errorf("control: %v", err)
		}
	})
}

func TestFlushAsksPolicyAgain(t *testing.T) {
	w, b := newWorld(t)
	if _, err := b.Token(t.Context(), run("run_1"), ledger()); err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.effect = decision.EffectDeny })
	b.Flush()
	if _, err := b.Token(t.Context(), run("run_1"), ledger()); err == nil {
		t.Error("the cached token outlived the policy")
	}
}

// liar returns tokens that break the contract.
type liar struct {
	token string
	life  time.Duration
}

func (l liar) Mint(context.Context, broker.MintRequest) (broker.Secret, time.Time, error) {
	return broker.NewSecret(l.token), time.Now().Add(l.life), nil
}

func TestMinterIsNotTrusted(t *testing.T) {
	for name, m := range map[string]broker.Minter{
		"empty": liar{"", time.Minute}, "expired": liar{"x", -time.Second}, "too long": liar{"x", time.Hour},
	} {
		w := &world{effect: decision.EffectAllow}
		b := broker.New(broker.Options{Decider: w, Minter: m, Journal: w, Log: slog.New(slog.DiscardHandler)})
		if _, err := b.Token(t.Context(), run("run_1"), ledger()); err == nil || w.recorded.Load() != 0 {
			t.Errorf("%s: accepted", name)
		}
		b.Close()
	}
}

func BenchmarkCachedToken(b *testing.B) {
	w := &world{effect: decision.EffectAllow}
	br := broker.New(broker.Options{Decider: w, Minter: w, Journal: w, Log: slog.New(slog.DiscardHandler)})
	defer br.Close()
	r, t := run("run_1"), ledger()
	for b.Loop() {
		if _, err := br.Token(b.Context(), r, t); err != nil {
			b.Fatal(err)
		}
	}
}
