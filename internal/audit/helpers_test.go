package audit

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

const (
	testBoot  = "6f1d2c3b-0000-4000-8000-000000000001"
	otherBoot = "6f1d2c3b-0000-4000-8000-000000000002"
)

func testOptions() Options {
	return Options{
		Node: "node-1", Boot: testBoot, SegmentSize: minSegmentSize, Reserve: minSegmentSize,
		FlushInterval: -1, Log: slog.New(slog.DiscardHandler),
	}
}

// mustOpen opens a log that the test closes, or that is closed at its end.
func mustOpen(t testing.TB, dir string, o Options, sys system) *Log {
	t.Helper()
	l, err := open(dir, o, sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustAppend(t testing.TB, l *Log, e Event, p decision.Promise) Event {
	t.Helper()
	if err := l.Append(context.Background(), &e, p); err != nil {
		t.Fatal(err)
	}
	return e
}

// sample returns the n-th of a series of different events.
func sample(n int) Event {
	return Event{
		Kind: KindHTTP, Effect: decision.EffectAllow, Run: fmt.Sprintf("run_%02d", n%3), Agent: "billing-bot",
		DecisionID: fmt.Sprintf("dec_%04d", n), Time: time.Date(2026, 1, 2, 3, 4, n, n, time.UTC),
		HTTP: &HTTP{Method: "GET", Authority: "api.example.org", Path: fmt.Sprintf("/v1/items/%d", n)},
	}
}

// fill makes a log with n events and closes it.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	l := mustOpen(t, dir, testOptions(), realSystem())
	for i := range n {
		mustAppend(t, l, sample(i), decision.Appended)
	}
	mustClose(t, l)
}

func collect(t testing.TB, dir string, f Filter) []Event {
	t.Helper()
	var out []Event
	for e, err := range Query(context.Background(), dir, f) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// fastDir returns a directory in memory, where fsync costs nothing, if there is
// one; for tests that open hundreds of logs.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "audit-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// copyLog copies the files that make up a log to a new directory.
func copyLog(t testing.TB, from string) string {
	t.Helper()
	to := fastDir(t)
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != spareName {
			write(t, filepath.Join(to, e.Name()), read(t, filepath.Join(from, e.Name())))
		}
	}
	return to
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// place is where a record is in its segment.
type place struct {
	seq        uint64
	start, end int64
}

// places returns where the records of the segment are; the first is the header
// and has the sequence number 0.
func places(t testing.TB, dir string, first uint64) []place {
	t.Helper()
	var out []place
	_, err := walk(dir, first, nil, func(f frame, _ time.Time) {
		out = append(out, place{f.seq, 0, int64(f.size())})
	})
	if err != nil {
		t.Fatal(err)
	}
	at := int64(len(read(t, segmentName(dir, first))))
	for i := len(out) - 1; i >= 0; i-- {
		out[i].start, out[i].end = at-out[i].end, at
		at = out[i].start
	}
	return append([]place{{0, 0, at}}, out...)
}
