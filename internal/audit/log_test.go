package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/varvel/varvel/internal/decision"
	"golang.org/x/sys/unix"
)

func TestAppendAndQuery(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), realSystem())
	var want []Event
	for i := range 10 {
		want = append(want, mustAppend(t, l, sample(i), decision.Promise(i%2)))
	}
	if diff := cmp.Diff(want, collect(t, dir, Filter{})); diff != "" {
		t.Error(diff)
	}
	mustClose(t, l)
	if diff := cmp.Diff(want, collect(t, dir, Filter{})); diff != "" {
		t.Error("after close:", diff)
	}
	r, err := Verify(dir)
	if err != nil || r.Records != 10 || r.LastHash != want[9].Hash || r.FirstHash != want[0].Hash || r.HeadSeq != 10 {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

func TestReopenContinues(t *testing.T) {
	for _, boot := range []string{testBoot, otherBoot} {
		t.Run(boot, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 5)
			o := testOptions()
			o.Boot = boot
			l := mustOpen(t, dir, o, realSystem())
			if e := mustAppend(t, l, sample(5), decision.Durable); e.Seq != 6 || e.Boot != boot {
				t.Errorf("seq %d, boot %s", e.Seq, e.Boot)
			}
			mustClose(t, l)
			if n, sealed := blocks(t, segmentName(dir, 1)), boot == otherBoot; sealed != (n < minSegmentSize) {
				t.Errorf("the first segment has %d bytes on disk", n)
			}
			if r, err := Verify(dir); err != nil || r.Records != 6 {
				t.Errorf("%+v, %v", r, err)
			}
			if got := collect(t, dir, Filter{}); got[4].Boot != testBoot || got[5].Boot != boot {
				t.Errorf("boots %s, %s", got[4].Boot, got[5].Boot)
			}
		})
	}
}

// blocks returns how many bytes of disk space a file has.
func blocks(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestEmptySegmentOfAnotherBootIsReplaced(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 0)
	o := testOptions()
	o.Boot = otherBoot
	l := mustOpen(t, dir, o, realSystem())
	mustAppend(t, l, sample(0), decision.Appended)
	mustClose(t, l)
	if r, err := Verify(dir); err != nil || r.Segments != 1 || r.Records != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := collect(t, dir, Filter{}); got[0].Boot != otherBoot {
		t.Errorf("boot %s", got[0].Boot)
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), realSystem())
	if _, err := Open(dir, testOptions()); err == nil || !strings.Contains(err.Error(), "another process writes to it") {
		t.Errorf("second open: %v", err)
	}
	mustClose(t, l)
	mustClose(t, mustOpen(t, dir, testOptions(), realSystem()))
}

func TestRefusals(t *testing.T) {
	l := mustOpen(t, t.TempDir(), testOptions(), realSystem())
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	big := sample(0)
	big.Mode = decision.Mode(strings.Repeat("x", MaxEvent))
	for _, tt := range []struct {
		name string
		ctx  context.Context
		e    Event
		want string
	}{
		{"kind", context.Background(), Event{Kind: "nonsense"}, "unknown kind"},
		{"activity", context.Background(), Event{Kind: KindApproval, Activity: "pondered"}, "unknown activity"},
		{"effect", context.Background(), Event{Kind: KindHTTP, Effect: "maybe"}, "none of allow, deny and hold"},
		{"size", context.Background(), big, "are the limit"},
		{"context", gone, sample(0), "not written: context canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := l.Append(tt.ctx, &tt.e, decision.Appended); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	mustAppend(t, l, sample(0), decision.Appended)
	mustClose(t, l)
	e := sample(1)
	if err := l.Append(context.Background(), &e, decision.Appended); !errors.Is(err, errClosed) {
		t.Errorf("after close: %v", err)
	}
	if r, err := Verify(l.Dir()); err != nil || r.Records != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestConcurrentAppends(t *testing.T) {
	const producers, each = 16, 100
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), realSystem())
	var wg sync.WaitGroup
	seen := make([]atomic.Bool, producers*each+1)
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				e := sample(p*each + i)
				if err := l.Append(context.Background(), &e, decision.Promise(i%2)); err != nil {
					t.Error(err)
				} else if seen[e.Seq].Swap(true) {
					t.Errorf("sequence number %d twice", e.Seq)
				}
			}
		})
	}
	wg.Wait()
	s := l.Stats()
	mustClose(t, l)
	r, err := Verify(dir)
	if err != nil || r.Records != producers*each || r.Segments < 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := s.Events[Label{KindHTTP, decision.EffectAllow}]; n != producers*each || s.Seq != producers*each {
		t.Errorf("stats: %+v", s)
	}
	if got := len(collect(t, dir, Filter{})); got != producers*each {
		t.Errorf("%d events", got)
	}
}

func TestAppendedIsInTheFileAndDurableIsSynced(t *testing.T) {
	sys, syncs := realSystem(), atomic.Int64{}
	sys.sync = func(f *os.File) error { syncs.Add(1); return f.Sync() }
	dir := t.TempDir()
	l := mustOpen(t, dir, testOptions(), sys)
	before := syncs.Load()
	for i := range 50 {
		mustAppend(t, l, sample(i), decision.Appended)
		if r, err := Verify(dir); err != nil || r.LastSeq != uint64(i+1) {
			t.Fatalf("event %d is not in the file: %+v, %v", i+1, r, err)
		}
	}
	if n := syncs.Load() - before; n != 0 {
		t.Errorf("%d fsyncs for appended events", n)
	}
	mustAppend(t, l, sample(50), decision.Durable)
	if n := syncs.Load() - before; n != 1 {
		t.Errorf("%d fsyncs for one durable event", n)
	}
}

// TestSharedSync holds one fsync back: everybody who comes meanwhile shares
// the next one, and who only wants Appended does not wait at all.
func TestSharedSync(t *testing.T) {
	sys, syncs := realSystem(), atomic.Int64{}
	entered, release := make(chan struct{}, 100), make(chan struct{})
	var hold atomic.Bool
	sys.sync = func(f *os.File) error {
		syncs.Add(1)
		if hold.Load() {
			entered <- struct{}{}
			<-release
		}
		return f.Sync()
	}
	l := mustOpen(t, t.TempDir(), testOptions(), sys)
	before := syncs.Load()
	hold.Store(true)
	errs := make(chan error, 100)
	durable := func(i int) {
		e := sample(i)
		errs <- l.Append(context.Background(), &e, decision.Durable)
	}
	go durable(0)
	<-entered
	for i := range 20 {
		go durable(i + 1)
	}
	for l.Head() < 21 {
		time.Sleep(time.Millisecond)
	}
	mustAppend(t, l, sample(99), decision.Appended)
	if len(errs) != 0 {
		t.Error("a durable append returned before its fsync")
	}
	close(release)
	for range 21 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := syncs.Load() - before; n != 2 {
		t.Errorf("%d fsyncs, want 2", n)
	}
}

func TestFlushInterval(t *testing.T) {
	o := testOptions()
	o.FlushInterval = time.Millisecond
	synced := make(chan int, 1000)
	o.Observer.Synced = func(waiters int, _ time.Duration, _ error) { synced <- waiters }
	l := mustOpen(t, t.TempDir(), o, realSystem())
	for len(synced) > 0 {
		<-synced
	}
	mustAppend(t, l, sample(0), decision.Appended)
	if waiters := <-synced; waiters != 0 {
		t.Errorf("%d waiters", waiters)
	}
}

func TestObserver(t *testing.T) {
	o := testOptions()
	var got []string
	o.Observer.Appended = func(k Kind, f decision.Effect, n int, took time.Duration) {
		got = append(got, fmt.Sprintf("%s %s %t %t", k, f, n > 0, took > 0))
	}
	l := mustOpen(t, t.TempDir(), o, realSystem())
	mustAppend(t, l, sample(0), decision.Appended)
	mustClose(t, l)
	if diff := cmp.Diff([]string{"http allow true true"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"node":    func(o *Options) { o.Node = "" },
		"boot":    func(o *Options) { o.Boot = "" },
		"logger":  func(o *Options) { o.Log = nil },
		"segment": func(o *Options) { o.SegmentSize = minSegmentSize - 1 },
		"reserve": func(o *Options) { o.Reserve = -1 },
		"maximum": func(o *Options) { o.MaxSize = minSegmentSize },
	} {
		o := testOptions()
		change(&o)
		if l, err := Open(t.TempDir(), o); err == nil {
			l.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
