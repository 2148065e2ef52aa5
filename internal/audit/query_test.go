package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/varvel/varvel/internal/decision"
)

// randomEvent has few different values, so that filters match now and then,
// some of which JSON has to escape.
func randomEvent(r *rand.Rand, at time.Time) Event {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	return Event{
		Kind:       Kind(pick("http", "dns", "connect")),
		Effect:     decision.Effect(pick("", "allow", "deny")),
		Run:        pick("", "run_1", "run_2"),
		Agent:      pick("a", "b<&>", "c\u2028\"\\", "d\xff"),
		Actor:      pick("spiffe://example.org/agent/a", "spiffe://example.org/agent/ü"),
		DecisionID: pick("", "dec_1", "dec_2"),
		ApprovalID: pick("", "apr_1"),
		Message:    pick("", `"run":"run_1"`, "x"),
		Time:       at.Add(time.Duration(r.IntN(20)-10) * time.Second),
	}
}

func randomFilter(r *rand.Rand, from []Event) Filter {
	like := from[r.IntN(len(from))]
	var f Filter
	for _, set := range []func(){
		func() { f.Run = like.Run }, func() { f.Agent = like.Agent }, func() { f.Actor = like.Actor },
		func() { f.Kind = like.Kind }, func() { f.Effect = like.Effect },
		func() { f.DecisionID = like.DecisionID }, func() { f.ApprovalID = like.ApprovalID },
		func() { f.Since = like.Time }, func() { f.Until = from[r.IntN(len(from))].Time },
		func() { f.After = like.Seq }, func() { f.Limit = 1 + r.IntN(20); f.Newest = r.IntN(2) == 0 },
	} {
		if r.IntN(4) == 0 {
			set()
		}
	}
	return f
}

// inMemory is what Query has to return.
func inMemory(all []Event, f Filter) []Event {
	var out []Event
	for _, e := range all {
		if f.Match(&e) {
			out = append(out, e)
		}
	}
	if f.Limit > 0 && len(out) > f.Limit {
		if f.Newest {
			return out[len(out)-f.Limit:]
		}
		return out[:f.Limit]
	}
	return out
}

func TestQueryIsFilter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), realSystem())
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for i := range 1200 {
		mustAppend(t, l, randomEvent(r, at.Add(time.Duration(i)*time.Second)), decision.Appended)
	}
	all := collect(t, dir, Filter{})
	if firsts, _ := segments(dir); len(firsts) < 3 || len(all) != 1200 {
		t.Fatalf("%d segments, %d events", len(firsts), len(all))
	}
	for range 120 {
		f := randomFilter(r, all)
		if diff := cmp.Diff(seqs(inMemory(all, f)), seqs(collect(t, dir, f))); diff != "" {
			t.Fatalf("%+v: %s", f, diff)
		}
	}
}

func seqs(events []Event) []uint64 {
	var out []uint64
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

// TestSkip removes the content of a segment that the times exclude: a query
// that does not need it does not read it.
func TestSkip(t *testing.T) {
	dir := t.TempDir()
	firsts := manySegments(t, dir)
	all := collect(t, dir, Filter{})
	since := all[firsts[1]-1].Time
	until := all[firsts[1]].Time
	b := read(t, segmentName(dir, firsts[0]))
	clear(b[1000:])
	write(t, segmentName(dir, firsts[0]), b)
	got := collect(t, dir, Filter{Since: since, Until: until})
	if len(got) != 1 || got[0].Seq != firsts[1] {
		t.Errorf("%d events", len(got))
	}
	if got := collect(t, dir, Filter{After: firsts[1] - 1, Limit: 1}); len(got) != 1 {
		t.Errorf("after: %d events", len(got))
	}
	if got := collect(t, dir, Filter{Newest: true, Limit: 5}); len(got) != 5 {
		t.Errorf("newest: %d events", len(got))
	}
	if err := queryError(dir, Filter{}); err == nil {
		t.Error("control: the damaged segment was read without an error")
	}
}

func queryError(dir string, f Filter) error {
	for _, err := range Query(context.Background(), dir, f) {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestQueryFindsDamage(t *testing.T) {
	from := t.TempDir()
	firsts := manySegments(t, from)
	for name, damage := range map[string]func(dir string){
		"missing": func(dir string) { os.Remove(segmentName(dir, firsts[1])) },
		"cut": func(dir string) {
			b := read(t, segmentName(dir, firsts[1]))
			write(t, segmentName(dir, firsts[1]), b[:len(b)-1])
		},
		"record": func(dir string) {
			b := read(t, segmentName(dir, firsts[1]))
			b[5000] ^= 1
			write(t, segmentName(dir, firsts[1]), b)
		},
		"header": func(dir string) { write(t, segmentName(dir, firsts[1]), []byte("something else, which is no header")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyLog(t, from)
			damage(dir)
			var p *Problem
			if err := queryError(dir, Filter{}); !errors.As(err, &p) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestQueryEndsWithContext(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 5)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := 0
	for _, err := range Query(ctx, dir, Filter{}) {
		if n++; n == 2 {
			cancel()
		}
		if (n > 2) != errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if n != 3 {
		t.Errorf("%d results", n)
	}
}

// TestFollow follows through several segments while two producers append.
func TestFollow(t *testing.T) {
	const each = 600
	l := mustOpen(t, t.TempDir(), testOptions(), realSystem())
	mustAppend(t, l, sample(0), decision.Appended)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range each {
				if err := appendErr(l, decision.Promise(i%50/49)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	want := uint64(1)
	for e, err := range l.Follow(context.Background(), Filter{Limit: 2*each + 1}) {
		if err != nil || e.Seq != want {
			t.Fatalf("seq %d, want %d: %v", e.Seq, want, err)
		}
		want++
	}
	wg.Wait()
	if want != 2*each+2 {
		t.Errorf("ended before %d", want)
	}
}

func TestFollowEnds(t *testing.T) {
	l := mustOpen(t, t.TempDir(), testOptions(), realSystem())
	mustAppend(t, l, sample(0), decision.Appended)
	ctx, cancel := context.WithCancel(context.Background())
	got := map[string][]uint64{}
	var mu sync.Mutex
	var wg, running sync.WaitGroup
	for name, c := range map[string]context.Context{"context": ctx, "close": context.Background()} {
		running.Add(1)
		wg.Go(func() {
			started := sync.OnceFunc(running.Done)
			for e, err := range l.Follow(c, Filter{}) {
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				got[name] = append(got[name], e.Seq)
				mu.Unlock()
				started()
			}
		})
	}
	running.Wait()
	cancel()
	mustAppend(t, l, sample(1), decision.Appended)
	mustClose(t, l)
	wg.Wait()
	if !slices.Equal(got["close"], []uint64{1, 2}) || len(got["context"]) == 0 {
		t.Error(got)
	}
}

func TestFollowOnlyNew(t *testing.T) {
	l := mustOpen(t, t.TempDir(), testOptions(), realSystem())
	for i := range 5 {
		mustAppend(t, l, sample(i), decision.Appended)
	}
	after := l.Head()
	go appendErr(l, decision.Appended)
	for e, err := range l.Follow(context.Background(), Filter{After: after, Limit: 1}) {
		if err != nil || e.Seq != 6 {
			t.Errorf("seq %d, %v", e.Seq, err)
		}
	}
}

// TestReadersWhileWriting verifies and queries all the time that the log grows.
func TestReadersWhileWriting(t *testing.T) {
	dir := t.TempDir()
	o := testOptions()
	o.FlushInterval = time.Millisecond
	l := mustOpen(t, dir, o, realSystem())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, read := range []func() error{
		func() error { _, err := Verify(dir); return err },
		func() error { return queryError(dir, Filter{}) },
		func() error { return queryError(dir, Filter{Newest: true, Limit: 3}) },
	} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := read(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 600 {
		mustAppend(t, l, sample(i), decision.Appended)
	}
	close(stop)
	wg.Wait()
}

func ExampleQuery() {
	for e, err := range Query(context.Background(), "/nonexistent", Filter{Kind: KindApproval, Limit: 10, Newest: true}) {
		if err != nil {
			fmt.Println("the log cannot be read")
			return
		}
		fmt.Println(e.Time, e.Activity, e.ApprovalID)
	}
	// Output: the log cannot be read
}
