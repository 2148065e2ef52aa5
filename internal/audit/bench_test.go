package audit

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/varvel/varvel/internal/decision"
)

// BenchmarkAppend compares the log with the bare operation on a file of the
// same file system, in turns, in the same run: write(2) of as many bytes for
// Appended, and write(2) and fsync(2) for Durable. "ratio" is the log's time
// by the bare one's.
func BenchmarkAppend(b *testing.B) {
	for _, bench := range []struct {
		name      string
		promise   decision.Promise
		producers int
		chunk     int // operations of all producers in one turn
	}{
		{"appended", decision.Appended, 1, 512},
		{"appended-256", decision.Appended, 256, 2048},
		{"durable", decision.Durable, 1, 8},
		{"durable-256", decision.Durable, 256, 512},
	} {
		b.Run(bench.name, func(b *testing.B) {
			dir := b.TempDir()
			l := mustOpen(b, filepath.Join(dir, "audit"), benchOptions(), realSystem())
			bare := newBare(b, dir, bench.promise)
			event := benchEvent()
			var logTime, bareTime time.Duration
			ops := 0
			for b.Loop() {
				logTime += parallel(bench.producers, bench.chunk, func() error { return benchAppend(l, event, bench.promise) })
				bareTime += parallel(bench.producers, bench.chunk, bare.write)
				ops += bench.chunk
			}
			b.ReportMetric(float64(logTime.Nanoseconds())/float64(ops), "ns/event")
			b.ReportMetric(float64(bareTime.Nanoseconds())/float64(ops), "ns/bare")
			b.ReportMetric(float64(logTime)/float64(bareTime), "ratio")
			b.ReportMetric(0, "ns/op") // it would be that of a whole turn
		})
	}
}

func benchOptions() Options {
	o := testOptions()
	o.SegmentSize, o.Reserve = DefaultSegmentSize, DefaultReserve
	return o
}

func benchEvent() Event {
	e := sample(7)
	e.Actor, e.Owner, e.Tool, e.Action = "spiffe://example.org/agent/billing-bot", "finance-platform", "ledger", "accounts.read"
	e.Risk, e.Mode = decision.RiskRead, decision.ModeEnforce
	e.Target = &Target{Name: "ledger.example.org", Port: 443, Protocol: "tcp"}
	e.Reasons = []decision.Reason{{Rule: "default.read", Text: "Reading is allowed."}}
	e.PolicyRevision, e.ToolRevision = "sha256:0123456789abcdef", "sha256:fedcba9876543210"
	return e
}

func benchAppend(l *Log, e Event, p decision.Promise) error {
	return l.Append(context.Background(), &e, p)
}

// parallel runs op n times in all, by this many goroutines.
func parallel(producers, n int, op func() error) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for range n / producers {
				if err := op(); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// bare is the operation without the log.
type bare struct {
	durable bool
	frame   []byte
	file    *os.File

	mu   sync.Mutex
	size int64
}

func newBare(b *testing.B, dir string, p decision.Promise) *bare {
	e := benchEvent()
	e.V = Version
	payload, err := encode(e)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return &bare{durable: p == decision.Durable, frame: appendFrame(nil, frame{payload: payload}), file: f}
}

// write appends to the file, and begins it anew where the log would begin a
// new segment.
func (w *bare) write() error {
	w.mu.Lock()
	at := w.size
	if w.size += int64(len(w.frame)); w.size > DefaultSegmentSize {
		at, w.size = 0, int64(len(w.frame))
		if err := w.file.Truncate(0); err != nil {
			w.mu.Unlock()
			return err
		}
	}
	w.mu.Unlock()
	if _, err := w.file.WriteAt(w.frame, at); err != nil || !w.durable {
		return err
	}
	return w.file.Sync()
}

func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	l := mustOpen(b, dir, benchOptions(), realSystem())
	event := benchEvent()
	for range 5000 {
		if err := benchAppend(l, event, decision.Appended); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, l)
	for b.Loop() {
		if _, err := Verify(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/event")
}

func BenchmarkEncode(b *testing.B) {
	m, event := newMasker(), benchEvent()
	for b.Loop() {
		e := event
		m.bound(&e)
		if _, err := encode(e); err != nil {
			b.Fatal(err)
		}
	}
}
