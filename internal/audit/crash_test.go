package audit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/varvel/varvel/internal/decision"
)

// crashed returns a log with n records of which the head knows only known, as
// if the process had died before it could write the head again.
func crashed(t *testing.T, n int, known uint64) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, n)
	h := head{Seq: known}
	for _, e := range collect(t, dir, Filter{}) {
		if e.Seq == known {
			h.Hash = e.Hash
		}
	}
	if err := writeHead(dir, h); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openAs(t *testing.T, dir, boot string) (*Log, error) {
	o := testOptions()
	o.Boot = boot
	return Open(dir, o)
}

// TestCrashAtEachByte cuts the file at every offset of the last two records,
// of which the head knows none.
func TestCrashAtEachByte(t *testing.T) {
	from := crashed(t, 5, 3)
	where := places(t, from, 1)
	whole := read(t, segmentName(from, 1))
	for cut := where[4].start; cut <= int64(len(whole)); cut++ {
		dir := copyLog(t, from)
		write(t, segmentName(dir, 1), whole[:cut])
		kept, good := uint64(0), int64(0)
		for _, p := range where {
			if p.end <= cut {
				kept, good = p.seq, p.end
			}
		}
		checkRecovered(t, dir, testBoot, cut, kept, cut-good)
	}
}

// checkRecovered opens the log, and expects the records up to kept, and an
// event that says how many bytes were removed, if any.
func checkRecovered(t *testing.T, dir, boot string, cut int64, kept uint64, removed int64) {
	t.Helper()
	l, err := openAs(t, dir, boot)
	if err != nil {
		t.Fatalf("cut at %d: %v", cut, err)
	}
	mustAppend(t, l, sample(50), decision.Appended)
	mustClose(t, l)
	got := collect(t, dir, Filter{})
	want := int(kept) + 1
	if removed > 0 {
		want++
	}
	if len(got) != want {
		t.Fatalf("cut at %d: %d events, want %d", cut, len(got), want)
	}
	if e := got[kept]; removed > 0 && (e.Kind != KindLoss || e.Message != fmt.Sprintf("recovered: %d bytes of an unfinished record removed", removed)) {
		t.Fatalf("cut at %d: %+v", cut, e)
	}
	if _, err := Verify(dir); err != nil {
		t.Fatalf("cut at %d: %v", cut, err)
	}
}

// TestCutBehindHead cuts off records that the head knows: that is no crash.
func TestCutBehindHead(t *testing.T) {
	from := crashed(t, 6, 5)
	where := places(t, from, 1)
	whole := read(t, segmentName(from, 1))
	for cut := where[3].start; cut < where[5].end; cut += 7 {
		dir := copyLog(t, from)
		write(t, segmentName(dir, 1), whole[:cut])
		for _, boot := range []string{testBoot, otherBoot} {
			if l, err := openAs(t, dir, boot); err == nil {
				l.Close()
				t.Fatalf("cut at %d was opened", cut)
			} else if !strings.Contains(err.Error(), "cut off") || !strings.Contains(err.Error(), "varvel audit verify") {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
		if got := read(t, segmentName(dir, 1)); int64(len(got)) != cut {
			t.Fatalf("cut at %d: the refused log was changed", cut)
		}
		if _, err := Verify(dir); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Fatalf("cut at %d: verify: %v", cut, err)
		}
	}
}

// TestPowerLoss leaves a last record whose blocks were not all written. After
// another boot that is a torn record; in the same boot nothing explains it.
func TestPowerLoss(t *testing.T) {
	from := crashed(t, 6, 3)
	where := places(t, from, 1)
	whole := read(t, segmentName(from, 1))
	last := where[6]
	torn := append([]byte(nil), whole...)
	clear(torn[last.start+60:])
	zeros := append(append([]byte(nil), whole[:last.start]...), make([]byte, 4096)...)
	half := append(append([]byte(nil), torn...), make([]byte, 8192)...)
	middle := append([]byte(nil), whole...)
	middle[where[5].start+60] ^= 1
	for _, tt := range []struct {
		name    string
		content []byte
		boot    string
		removed int64 // -1: refused
	}{
		{"torn", torn, otherBoot, last.end - last.start},
		{"torn, then zeros", half, otherBoot, last.end - last.start + 8192},
		{"torn, same boot", torn, testBoot, -1},
		{"zeros", zeros, otherBoot, 4096},
		{"zeros, same boot", zeros, testBoot, -1},
		{"not the last record", middle, otherBoot, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyLog(t, from)
			write(t, segmentName(dir, 1), tt.content)
			if tt.removed >= 0 {
				checkRecovered(t, dir, tt.boot, 0, 5, tt.removed)
			} else if l, err := openAs(t, dir, tt.boot); err == nil {
				l.Close()
				t.Error("opened")
			}
		})
	}
}

// TestUnbornSegment is a crash between the name of a new segment and its
// content.
func TestUnbornSegment(t *testing.T) {
	for name, content := range map[string][]byte{"empty": nil, "short": []byte(magic + "\x00"), "zeros": make([]byte, 600)} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t, 3, 3)
			write(t, segmentName(dir, 4), content)
			l := mustOpen(t, dir, testOptions(), realSystem())
			mustAppend(t, l, sample(4), decision.Durable)
			mustClose(t, l)
			if r, err := Verify(dir); err != nil || r.LastSeq < 4 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"head missing": func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, headName)) },
		"head changed": func(t *testing.T, dir string) { write(t, filepath.Join(dir, headName), []byte("{}\n")) },
		"head of another log": func(t *testing.T, dir string) {
			if err := writeHead(dir, head{Seq: 6, Hash: Hash{1}}); err != nil {
				t.Fatal(err)
			}
		},
		"segments missing": func(t *testing.T, dir string) { os.Remove(segmentName(dir, 1)) },
		"header": func(t *testing.T, dir string) {
			b := read(t, segmentName(dir, 1))
			b[20] ^= 1
			write(t, segmentName(dir, 1), b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 6)
			damage(t, dir)
			if l, err := Open(dir, testOptions()); err == nil {
				l.Close()
				t.Error("opened")
			} else if !strings.Contains(err.Error(), "move "+dir+" away") {
				t.Error(err)
			}
		})
	}
}

// TestKill kills a process that appends, and expects every event for which
// Append had returned.
func TestKill(t *testing.T) {
	if dir := os.Getenv("AUDIT_TEST_KILL_DIR"); dir != "" {
		appendForEver(t, dir)
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "AUDIT_TEST_KILL_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	acked := 0
	for lines.Scan() {
		if acked, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
		if acked == 2000 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if acked < 2000 {
		t.Fatalf("only %d events", acked)
	}
	if r, err := Verify(dir); err != nil || r.LastSeq < uint64(acked) {
		t.Errorf("%d acknowledged: %+v, %v", acked, r, err)
	}
	mustClose(t, mustOpen(t, dir, testOptions(), realSystem()))
}

func appendForEver(t *testing.T, dir string) {
	l := mustOpen(t, dir, testOptions(), realSystem())
	for i := range 1 << 20 {
		e := sample(i)
		if err := l.Append(context.Background(), &e, decision.Appended); err != nil {
			t.Fatal(err)
		}
		fmt.Println(e.Seq)
	}
}

// TestLeftSpare: a crash between the header of the next segment and its name.
func TestLeftSpare(t *testing.T) {
	dir := t.TempDir()
	firsts := manySegments(t, dir)
	write(t, filepath.Join(dir, spareName), read(t, segmentName(dir, firsts[2])))
	o := testOptions()
	o.Boot = otherBoot
	l := mustOpen(t, dir, o, realSystem())
	mustAppend(t, l, sample(0), decision.Durable)
	mustClose(t, l)
	if r, err := Verify(dir); err != nil || r.Segments != 4 {
		t.Errorf("%+v, %v", r, err)
	}
}
