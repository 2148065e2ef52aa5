package launch

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestLinkInPlaceOfSocket: who bound a socket puts a link in its place. What the
// link leads to is not masked; a socket still is.
func TestLinkInPlaceOfSocket(t *testing.T) {
	b := newBench(t, Plan{})
	victim, link, door := filepath.Join(b.dir, "victim"), filepath.Join(b.dir, "link"), filepath.Join(b.dir, "door")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(victim, "file"), []byte("here"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, door} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		defer l.Close()
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if r := b.run(user1000(), "cat", filepath.Join(victim, "file")); r.stdout != "here" {
		t.Errorf("the directory behind the link is gone: %+v", r)
	}
	if r := b.run(user1000(), "test", "-S", door); r.code == 0 {
		t.Error("the socket is not masked")
	}
	if r := b.bare(user1000(), "test", "-S", door); r.code != 0 {
		t.Errorf("control: %+v", r)
	}
}

// TestMovedDirectoryStopsTheRun: a directory of Varvel that is not where it
// should be could be seen at its new place.
func TestMovedDirectoryStopsTheRun(t *testing.T) {
	b := newBench(t, Plan{Files: Files{Hide: []string{"/nonexistent/state"}}})
	if r := b.run(user1000(), "true"); r.code == 0 {
		t.Errorf("the run was started: %+v", r)
	}
}
