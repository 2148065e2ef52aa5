package launch

import (
	"os"
	"strings"
	"testing"
)

// TestHosts shows that the node's hosts file does not answer for names in a
// run, and that the run, as root too, cannot write its own.
func TestHosts(t *testing.T) {
	b := newBench(t, Plan{})
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	outside := b.bare(caller{}, "cat", hostsFile)
	if outside.stdout == "" {
		t.Skipf("control: this machine has no %s", hostsFile)
	}
	want := strings.TrimSpace(string(hostsText(name)))
	for who, c := range users() {
		if r := b.run(c, "cat", hostsFile); strings.TrimSpace(r.stdout) != want {
			t.Errorf("%s: got %q (%s), want %q; outside it is %q", who, r.stdout, r.stderr, want, outside.stdout)
		}
		if r := b.run(c, b.exe, "helper", "try", "append", hostsFile); r.stdout != "EROFS" && r.stdout != "EACCES" {
			t.Errorf("%s: append to it: %q (%s)", who, r.stdout, r.stderr)
		}
	}
	if r := b.bare(caller{}, "cat", hostsFile); r.stdout != outside.stdout {
		t.Errorf("the node's own file has changed: %q", r.stdout)
	}
}
