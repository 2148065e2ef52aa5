package runstate

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/varvel/varvel/internal/decision"
)

func sample() Run {
	return Run{
		Version: Version,
		Run:     decision.Run{ID: "run_01A", Agent: "bot", Boot: "b", Node: "n", Mode: decision.ModeEnforce},
		Actor:   decision.Actor{Account: "spiffe://x/agent/bot", StartedBy: &decision.LocalUser{UID: 7, Name: "seven"}},
		Cgroup:  "/sys/fs/cgroup/varvel/runs/run_01A", CgroupID: 42, NetNS: "net:[1]",
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Command: []string{"true"}, Stage: Starting,
	}
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "runs"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func only(t *testing.T, s *Store) State {
	t.Helper()
	all, err := s.Load()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0]
}

func TestWhatIsKeptComesBack(t *testing.T) {
	s := open(t)
	r := sample()
	name := Name{"a.example", netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fd56:6172:7665:6c00::1")}
	lease := Lease{Tool: "git", Audience: "x", Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Decision: "dec_1", Hash: "h"}
	for _, err := range []error{s.Put(r), s.AddName(r.Run.ID, name), s.AddLease(r.Run.ID, lease)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.Stage = Started
	if err := s.Put(r); err != nil {
		t.Fatal(err)
	}
	want := State{ID: "run_01A", Run: r, Names: []Name{name}, Leases: []Lease{lease}}
	if diff := cmp.Diff(want, only(t, s), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if err := s.Remove(r.Run.ID); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Load(); err != nil || len(all) > 0 {
		t.Error(all, err)
	}
	if err := s.AddName(r.Run.ID, name); err == nil {
		t.Error("a name of a run that is forgotten was kept")
	}
}

// TestWhatCannotBeRead changes one thing at a time.
func TestWhatCannotBeRead(t *testing.T) {
	for _, tt := range []struct{ file, old, new string }{
		{"run.json", `"version":1`, `"version":2`},
		{"run.json", `"version":1`, `"version":1,"more":1`},
		{"run.json", `"run_01A"`, `"run_01B"`},
		{"run.json", `"stage":"starting"`, `"stage":"?"`},
		{"run.json", `"mode":"enforce"`, `"mode":"none"`},
		{"run.json", `"cgroup_id":42`, `"cgroup_id":0`},
		{"run.json", `"cgroup":"/`, `"cgroup":"`},
		{"run.json", `}`, ``},
		{"names", "198.18.0.1 ", "198.18.0.1"},
		{"names", "198.18.0.1", "::1"},
		{"names", "a.example", ""},
		{"leases", `"tool":"git"`, `"tool":""`},
	} {
		s := open(t)
		r := sample()
		name := Name{"a.example", netip.MustParseAddr("198.18.0.1"), netip.MustParseAddr("fd56:6172:7665:6c00::1")}
		for _, err := range []error{s.Put(r), s.AddName(r.Run.ID, name), s.AddLease(r.Run.ID, Lease{Tool: "git", Expires: time.Now()})} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if st := only(t, s); st.Err != nil {
			t.Fatalf("the control: %v", st.Err)
		}
		file := s.file(r.Run.ID, tt.file)
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(text), tt.old) {
			t.Fatalf("%s: %q, %v", tt.old, text, err)
		}
		if err := os.WriteFile(file, []byte(strings.Replace(string(text), tt.old, tt.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if st := only(t, s); st.Err == nil || st.ID != r.Run.ID {
			t.Errorf("%s with %q in place of %q was read", tt.file, tt.new, tt.old)
		}
	}
}

func TestALineThatWasCutOffDoesNotCount(t *testing.T) {
	s := open(t)
	if err := s.Put(sample()); err != nil {
		t.Fatal(err)
	}
	text := "198.18.0.1 fd56:6172:7665:6c00::1 a.example\n198.18.0.2 fd56:6172:7665:6c00::2 b.exa"
	if err := os.WriteFile(s.file("run_01A", "names"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if st := only(t, s); st.Err != nil || len(st.Names) != 1 || st.Names[0].Host != "a.example" {
		t.Errorf("%+v", st)
	}
}

func FuzzDecodeRun(f *testing.F) {
	f.Add([]byte(`{"version":1,"run":{"id":"run_1","agent":"a","boot":"b","mode":"enforce"},"actor":{"account":"x","started_by":{"uid":1}},"cgroup":"/run_1","cgroup_id":1,"stage":"started"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decode(text)
		if err == nil && (!validID(r.Run.ID) || filepath.Base(r.Cgroup) != r.Run.ID || r.Actor.StartedBy == nil) {
			t.Errorf("%q is %+v", text, r)
		}
	})
}

func FuzzDecodeName(f *testing.F) {
	f.Add([]byte("198.18.0.1 fd56:6172:7665:6c00::1 a.example"))
	f.Fuzz(func(t *testing.T, line []byte) {
		n, err := decodeName(line)
		if err == nil && (!n.V4.Is4() || !n.V6.Is6() || n.Host == "") {
			t.Errorf("%q is %+v", line, n)
		}
	})
}
