package approval

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/varvel/varvel/internal/decision"
)

// copyOf opens a store on a journal with the given bytes.
func copyOf(t testing.TB, f *fixture, data []byte) (*fixture, error) {
	t.Helper()
	g := &fixture{cfg: f.cfg, ledger: &ledger{}, runs: f.runs}
	g.cfg.Dir, g.cfg.Events = memoryDir(t), g.ledger
	if err := os.WriteFile(filepath.Join(g.cfg.Dir, "journal"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	// What the machine's death does to a file is in data already.
	store, err := open(context.Background(), g.cfg, func(*os.File) error { return nil })
	g.Store = store
	return g, err
}

// memoryDir returns a directory in memory if there is one: a thousand stores
// are opened, and some file systems write to the disk at each rename.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "approval")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (f *fixture) bytes(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.cfg.Dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestCrashWhileWriting cuts the journal at every byte of its last record: the
// transition did not happen, until its last byte was there.
func TestCrashWhileWriting(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	steps := []struct {
		name   string
		make   func()
		before State // after a crash while it is written; "" if there is nothing
		after  State // after a crash when it was written
	}{
		{"granted", func() { f.approve(t, id, somebody) }, Pending, Granted},
		{"claimed", func() { f.ask(t, decision.StatusGranted, question(nil), held(nil)) }, Granted, OutcomeUnknown},
		{"settled", func() { f.Settle(t.Context(), id, Outcome{Status: 200}) }, OutcomeUnknown, Settled},
	}
	for _, step := range steps {
		before := len(f.bytes(t))
		step.make()
		data := f.bytes(t)
		for n := before; n <= len(data); n++ {
			want := step.before
			if n == len(data) {
				want = step.after
			}
			g, err := copyOf(t, f, data[:n])
			if err != nil {
				t.Fatalf("%s, cut at byte %d of %d: %v", step.name, n, len(data), err)
			}
			g.state(t, id, want)
			g.Close()
		}
	}
}

// TestCrashAtTheClaim is what matters most: before the claim is durable the
// action may be started once, after it never again.
func TestCrashAtTheClaim(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	f.approve(t, id, somebody)
	before := len(f.bytes(t))
	f.ask(t, decision.StatusGranted, question(nil), held(nil))
	data := f.bytes(t)

	g, err := copyOf(t, f, data[:len(data)-1])
	if err != nil {
		t.Fatal(err)
	}
	g.ask(t, decision.StatusGranted, question(nil), held(nil))
	g.ask(t, decision.StatusUsed, question(nil), held(nil))
	g.Close()

	if g, err = copyOf(t, f, data); err != nil {
		t.Fatal(err)
	}
	if res := g.ask(t, decision.StatusUsed, question(nil), held(nil)); res.Reason.Rule != "approval.outcome-unknown" {
		t.Errorf("the reason is %q", res.Reason.Rule)
	}
	if g.ledger.count(EventOutcomeUnknown) != 1 {
		t.Errorf("events: %v", g.ledger.kinds())
	}
	g.Close()

	// Whole in length, but wrong: it may have been in force.
	for n := before; n < len(data)-1; n++ {
		wrong := bytes.Clone(data)
		wrong[n] ^= 1
		if g, err = copyOf(t, f, wrong); err != nil {
			t.Fatalf("byte %d is wrong: %v", n, err)
		}
		g.state(t, id, Cancelled)
		g.Close()
	}
}

// TestDamagedInTheMiddle must not lose a transition that was in force.
func TestDamagedInTheMiddle(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	first := len(f.bytes(t))
	f.approve(t, id, somebody)
	data := f.bytes(t)
	for n := range first - 1 {
		wrong := bytes.Clone(data)
		wrong[n] ^= 1
		if g, err := copyOf(t, f, wrong); err == nil {
			t.Errorf("byte %d is wrong, and it opens", n)
			g.Close()
		} else if !strings.Contains(err.Error(), "record at byte 0") {
			t.Fatal(err)
		}
	}
	// Without the line feed both records are one, the last: nothing is left
	// that could be started.
	data[first-1] ^= 1
	g, err := copyOf(t, f, data)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if a, err := g.Get(id); err == nil {
		t.Errorf("%s is %s", id, a.State)
	}
}

func TestUnknownRecords(t *testing.T) {
	for name, body := range map[string]string{
		"version":   `{"v":2,"approval":{"id":"apr_1"}}`,
		"field":     `{"v":1,"approval":{"id":"apr_1"},"more":1}`,
		"no id":     `{"v":1,"approval":{}}`,
		"not JSON":  `x`,
		"two":       `{"v":1,"approval":{"id":"apr_1"}} {"v":1,"approval":{"id":"apr_2"}}`,
		"bad state": `{"v":1,"approval":{"id":"apr_1","state":"maybe"}}`,
	} {
		data := appendRecord(nil, []byte(body))
		if c, err := parse(data); err == nil {
			t.Errorf("%s: got %v", name, c)
		}
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(func(n *decision.Need) { n.Groups = []string{"dba"} })).ApprovalID
	if _, err := f.Approve(t.Context(), id, person(somebody, func(a *Approver) { a.Groups = []string{"dba"} }), "fine"); err != nil {
		t.Fatal(err)
	}
	before := f.state(t, id, Granted)
	f.reopen(t)
	if diff := cmp.Diff(before, f.state(t, id, Granted), cmp.Comparer(func(a, b decision.Target) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	f.ask(t, decision.StatusGranted, question(nil), held(nil))
}

func TestRunsThatDidNotSurvive(t *testing.T) {
	f := newFixture(t, nil)
	pending := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	other := f.ask(t, decision.StatusPending, question(func(r *decision.Request) { r.Run.ID = "run_02" }), held(nil)).ApprovalID
	f.runs.change(func(f *inForce) { f.dead["run_01"] = true })
	f.reopen(t)
	f.state(t, pending, Cancelled)
	f.state(t, other, Pending) // control
}

func TestOneDaemonAtATime(t *testing.T) {
	f := newFixture(t, nil)
	if _, err := Open(t.Context(), f.cfg); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
}

func TestClosed(t *testing.T) {
	f := newFixture(t, nil)
	f.Close()
	if _, err := f.Ask(t.Context(), question(nil), held(nil)); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
	if len(f.ledger.kinds()) != 0 {
		t.Error("something was recorded")
	}
}

// TestCompaction has one approval change until the journal is written anew.
func TestCompaction(t *testing.T) {
	f := newFixture(t, nil)
	id := f.ask(t, decision.StatusPending, question(nil), held(nil)).ApprovalID
	f.journal.size = compactAt + 1
	f.approve(t, id, somebody)
	if lines := bytes.Count(f.bytes(t), []byte("\n")); lines != 2 {
		t.Errorf("the journal has %d records, want what was in force and what came", lines)
	}
	f.reopen(t)
	f.state(t, id, Granted)
}

func FuzzParse(f *testing.F) {
	one, err := record(Approval{ID: "apr_1", State: Pending})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(one)
	f.Add(append(bytes.Clone(one), one[:20]...))
	f.Add([]byte("00000000 \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(data)
		if err != nil {
			return
		}
		var again []byte
		for _, a := range c.approvals {
			line, err := record(a)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, line...)
		}
		d, err := parse(again)
		if err != nil || len(d.approvals) != len(c.approvals) || d.damaged {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
