package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadMounts(t *testing.T) {
	text := `21 27 0:19 / /proc rw,nosuid shared:12 - proc proc rw
30 24 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw
99 27 8:1 /x\040y /mnt/a\040b\134c rw master:1 propagate_from:2 - ext4 /dev/sda1 rw
`
	got, err := readMounts(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []mountPoint{{"/proc", "proc"}, {"/sys/fs/cgroup", "cgroup2"}, {`/mnt/a b\c`, "ext4"}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountPoint{})); diff != "" {
		t.Error(diff)
	}
	if _, err := readMounts(strings.NewReader("no mount\n")); err == nil {
		t.Error("a line that is no mount was accepted")
	}
}

func TestBoundSockets(t *testing.T) {
	text := `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 16523 /run/x/y.sock
0000000000000000: 00000003 00000000 00000000 0001 03  1613
0000000000000000: 00000002 00000000 00000000 0002 01    99 /tmp/with blank
0000000000000000: 00000002 00000000 00010000 0005 01 16524 @/abstract
0000000000000000: 00000002 00000000 00010000 0001 01 16525 relative
`
	got, err := boundSockets(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/run/x/y.sock", "/tmp/with blank"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseLimits(t *testing.T) {
	text, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseLimits(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != rlimitCount {
		t.Errorf("%d limits", len(all))
	}
	for _, bad := range []string{"", "one line\n", strings.Replace(string(text), "unlimited", "unlimitex", 1)} {
		if _, err := parseLimits(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"good": 0o755, "plain": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=/nonexistent:" + dir}
	if got, err := lookUp("good", env); err != nil || got != filepath.Join(dir, "good") {
		t.Errorf("good: %q, %v", got, err)
	}
	for name, code := range map[string]int{
		"plain": 126, "absent": 127, filepath.Join(dir, "plain"): 126, "/no/such": 127, dir: 126,
	} {
		_, err := lookUp(name, env)
		if e, ok := err.(*StartError); !ok || e.Code != code {
			t.Errorf("%s: %#v, want exit status %d", name, err, code)
		}
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string][3]int{
		"12 (a) b) T 1 34 5": {'T', 1, 34}, "12 (a": {}, "": {}, "1 (x) TT 1 1": {}, "1 (x) T y 1": {},
	} {
		state, parent, group := parseStat([]byte(text))
		if got := [3]int{int(state), parent, group}; got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestDoorsOf(t *testing.T) {
	got := doorsOf([]string{
		"SSH_AUTH_SOCK=/a/agent", "DOCKER_HOST=unix:///b/docker.sock", "DBUS_SESSION_BUS_ADDRESS=unix:path=/c/bus,guid=1",
		"TMUX=/d/default,1,0", "CONTAINER_HOST=tcp://x", "OTHER=/e",
	})
	if diff := cmp.Diff([]string{"/a/agent", "/b/docker.sock", "/c/bus", "/d/default"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[0m\tb\u202e\u009b\xff é"); got != "a?[0m\tb??? é" {
		t.Errorf("%q", got)
	}
}
