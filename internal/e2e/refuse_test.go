package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStartRefused starts daemons that cannot work. Each says what is wrong and
// what to do, and leaves nothing behind.
func TestStartRefused(t *testing.T) {
	tests := []struct {
		name  string
		node  string // more lines of varvel.yaml; %[1]s is the test's folder
		files map[string]string
		as    user
		argv  []string // before the daemon
		taken string   // an address that somebody else listens on
		want  []string
	}{
		{name: "not root", as: alice, want: []string{"needs root", "sudo"}},
		{name: "several problems",
			node: "metrics: { listen: nowhere }\nmetrcs: {}\n",
			files: map[string]string{
				"agents.d/a.yaml": "agent: a\nowner: x\negress:\n  - { cidr: 192.0.2.1/24 }\n  - { cidr: 127.0.0.0/8 }\n",
				"agents.d/b.yaml": "agent: b\ntools: [nosuch]\n",
				"agents.d/c.yaml": "agent: b\n",
			},
			want: []string{"varvel.yaml:7", "varvel.yaml:8", "metrcs", "a.yaml:4", "a.yaml:5", "b.yaml:2", "nosuch", "c.yaml:1"}},
		{name: "no policy directory", node: "policy: { dirs: [%[1]s/nopolicy] }\n", want: []string{"nopolicy", "varvel.yaml:7"}},
		{name: "bad policy", node: "policy: { dirs: [%[1]s/config/rego] }\n",
			files: map[string]string{"rego/x.rego": "package varvel.custom\n\ndeny contains {\"rule\": \"x\"} if input.tol == \"x\"\n"},
			want:  []string{"x.rego:3"}},
		{name: "an unreadable policy", node: "policy: { dirs: [%[1]s/config/rego] }\n",
			files: map[string]string{"rego/x.rego": "\xff\xfe"}, want: []string{"x.rego:1"}},
		{name: "a repeated key", files: map[string]string{"agents.d/a.yaml": "agent: a\nowner: x\nowner: y\n"}, want: []string{"a.yaml:3", "`owner` is repeated"}},
		{name: "tools that overlap", files: map[string]string{
			"tools.d/a.yaml":  "tool: a\nhosts: [api.example.org:443]\nclient: pass\n",
			"tools.d/b.yaml":  "tool: b\nhosts: [api.example.org:443]\nclient: pass\n",
			"agents.d/a.yaml": "agent: a\ntools: [a, b]\n",
		}, want: []string{"api.example.org", "b.yaml"}},
		{name: "too old a kernel", argv: []string{"setarch", "--uname-2.6"}, want: []string{"this kernel is Linux 2.6.", "needs 6.1 or newer", "boot a newer one"}},
		{name: "no BTF", argv: hidden("mount -t tmpfs none /sys/kernel"), want: []string{"no BTF", "CONFIG_DEBUG_INFO_BTF"}},
		{name: "no cgroup2 at all", argv: hidden("umount -lR /sys/fs/cgroup"),
			want: []string{"is not in a cgroup v2 mount", "leave `cgroup` out"}},
		{name: "a read-only cgroup2", argv: hidden(`mount -o remount,ro,bind "$(findmnt -nt cgroup2 -o TARGET | head -n1)"`),
			want: []string{"is read-only", "mount -o remount,rw"}},
		{name: "a cgroup namespace", argv: []string{"unshare", "--cgroup"}, want: []string{"cgroup namespace", "--cgroupns=host"}},
		{name: "a root without rights", argv: []string{"setpriv", "--bounding-set=-net_admin,-setuid", "--"},
			want: []string{"cap_setuid", "cap_net_admin", "CapabilityBoundingSet"}},
		{name: "a read-only state", node: "state_dir: /proc/varvel\n", want: []string{"/proc/varvel cannot be used", "state_dir"}},
		{name: "a full disk", argv: hidden("mkdir -m 700 DIR/state && mount -t tmpfs -o size=64k none DIR/state"),
			want: []string{"no disk space left", "free disk space"}},
		{name: "a socket that is a file", files: map[string]string{"../run/launch.sock": "x"}, want: []string{"launch.sock is in the way", "remove it"}},
		{name: "a group that does not exist", node: "admin: { group: nosuchgroup }\n", want: []string{"nosuchgroup", "groupadd"}},
		{name: "a bpffs that is a file", node: "bpffs: %[1]s/config/varvel.yaml\n", want: []string{"bpffs"}},
		{name: "a bpffs that may not be mounted", argv: []string{"setpriv", "--bounding-set=-sys_admin", "--"},
			want: []string{"no bpffs is mounted", "mount -t bpf"}},
		{name: "no cgroup2", node: "cgroup: %[1]s/shared\n", want: []string{"not in a cgroup v2 mount", "cgroup"}},
		{name: "issuer port taken", taken: "127.0.0.1:9471", want: []string{"issuer.listen", "in use"}},
		{name: "metrics port taken", taken: "127.0.0.1:9469", want: []string{"metrics.listen", "in use"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newRealm(t).newNode(t, options{files: tt.files, manual: true})
			n.override(tt.node)
			if tt.taken != "" {
				n.take(tt.taken)
			}
			before := n.leftovers() // what the test itself has put there
			argv := []string{"timeout", "20"}
			for _, a := range tt.argv {
				argv = append(argv, strings.ReplaceAll(a, "DIR/", n.dir+"/"))
			}
			r := n.do(tt.as, append(argv, bin("varveld"), "--config", filepath.Join(n.dir, "config"))...)
			if r.code == 0 || r.code > 2 {
				t.Errorf("exit status %d", r.code)
			}
			contains(t, "the daemon", r.stderr, tt.want...)

			if strings.Contains(r.stderr, "goroutine") {
				t.Errorf("it panicked:\n%s", r.stderr)
			}
			if left := n.startLeft(before); len(left) > 0 {
				t.Errorf("left behind by a start that has failed:\n\t%s", strings.Join(left, "\n\t"))
			}
			if err := os.RemoveAll(filepath.Join(n.dir, "run")); err != nil {
				t.Error(err)
			}
		})
	}
}

// hidden is a command line that does something in a mount namespace of its own
// before the daemon starts in it.
func hidden(script string) []string {
	return []string{"unshare", "--mount", "sh", "-c", script + ` && exec "$@"`, "sh"}
}

// startLeft is what a start that has failed must not leave, beyond what no daemon
// leaves: its mounts, the directories that it has made, and events of a daemon
// that never was. What it may keep are an id, keys and an empty log: they are
// whole, and the next start uses them.
func (n *node) startLeft(before []string) []string {
	left := slices.DeleteFunc(n.leftovers(), func(s string) bool { return slices.Contains(before, s) })
	if now := n.mountinfo(); now != n.before {
		left = append(left, "mounts:\n"+now)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "bpf")); err == nil {
		left = append(left, "the mount point of the bpffs")
	}
	if _, err := os.Stat(filepath.Join(n.dir, "state", "audit")); err == nil {
		if events := n.events(); len(events) > 0 {
			left = append(left, fmt.Sprintf("%d events", len(events)))
		}
	}
	return left
}

// override puts lines into varvel.yaml in place of those with the same key.
func (n *node) override(lines string) {
	if strings.Contains(lines, "%") {
		lines = fmt.Sprintf(lines, n.dir)
	}
	text := n.commons
	for line := range strings.Lines(lines) {
		key, _, _ := strings.Cut(line, ":")
		for old := range strings.Lines(text) {
			if strings.HasPrefix(old, key+":") {
				text = strings.Replace(text, old, "", 1)
			}
		}
		text += line
	}
	n.configure("varvel.yaml", text)
}

// take listens on the node for the rest of the test.
func (n *node) take(address string) {
	n.t.Helper()
	var l net.Listener
	err := n.realm.node.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.taken = l
}

// TestNoDaemon: every command says that there is no daemon, and what to do.
func TestNoDaemon(t *testing.T) {
	n := newRealm(t).newNode(t, options{manual: true})
	for _, args := range [][]string{{"status"}, {"runs"}, {"agents"}, {"tools"}, {"leases"}, {"approvals"}, {"audit"},
		{"why", "run_x", "x.example"}, {"approve", "apr_x", "--yes"}, {"deny", "apr_x"}, {"reload"}} {
		r := n.do(root, n.varvel(args...)...)
		if r.code != 4 || r.stdout != "" {
			t.Errorf("%q: %s", args, r)
		}
		contains(t, args[0], r.stderr, "cannot be reached", "start the daemon with")
	}
	r := n.do(alice, n.run("bot", "true")...)
	if r.code != 125 || r.stdout != "" {
		t.Errorf("run: %s", r)
	}
	contains(t, "run", r.stderr, "does not answer", "start it with: systemctl start varveld")
}

// TestSecondDaemon: the first one goes on as if nothing had happened.
func TestSecondDaemon(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
	send := n.run("bot", bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostListed)))
	r := n.try(root)
	if r.code != 1 {
		t.Errorf("exit status %d", r.code)
	}
	contains(t, "the second daemon", r.stderr, "another varveld uses "+n.dir+"/state", "state_dir")
	n.must(alice, send...)
	// With a state of its own, but everything else shared.
	n.configure("varvel.yaml", strings.Replace(n.commons, n.dir+"/state", n.dir+"/state2", 1))
	r = n.try(root)
	if r.code != 1 {
		t.Errorf("a daemon with another state: %s", r)
	}
	t.Logf("with a state of its own: %s", r.stderr)
	n.configure("varvel.yaml", n.commons)
	n.must(alice, send...)
	r = n.do(alice, n.run("bot", bin("client"), "act", "send", "x", "tcp4/"+at(v4(hostUnlisted)))...)
	contains(t, "after that", r.stdout, "EPERM")
}

// TestFullDisk: what changes something stops first, and the health says so.
func TestFullDisk(t *testing.T) {
	n := newRealm(t).newNode(t, options{
		files: toolFiles(), manual: true,
		node: "audit: { segment_size: 128KiB, reserve: 128KiB }\napproval: { in_band: 1s }\nroles: { approver: { users: [bin] }, viewer: { users: [bin] } }\n",
	})
	state := filepath.Join(n.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	n.must(root, "mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", state)
	n.before = n.mountinfo()
	n.start()
	s := n.shell("bot")
	look := []string{"curl", "-sS", "-m", "20", "-w", " %{http_code}", "http://tool.e2e.test:8080/look/x"}
	if r := s.do(look...); r.stdout != "done\n 200" {
		t.Fatalf("before: %s", r)
	}
	n.do(root, "dd", "if=/dev/zero", "of="+state+"/ballast", "bs=4k")
	// The approvals' journal has no room of its own set aside.
	contains(t, "a held request", s.do(post("/drop", "full")...).stdout, "status=503", "approval.error", `"retry":true`)
	// The log has, and comes down to its reserve.
	var r result
	n.eventually("runs are refused", func() bool {
		r = n.do(alice, n.run("bot", "true")...)
		return r.code == 125
	})
	contains(t, "a run on a full disk", r.stderr, "audit", "disk")
	if r := s.do(look...); r.stdout != "done\n 200" {
		t.Errorf("a read while the log has its reserve: %s", r)
	}
	if r := s.do(bin("client"), "act", "send", "full", "tcp4/"+at(v4(hostUnlisted))); !strings.Contains(r.stdout, "EPERM") {
		t.Errorf("an unlisted target on a full disk: %s", r)
	}
	if got := len(n.events("--effect", "deny", "--kind", "connect")); got != 1 {
		t.Errorf("the log has %d denials, not the one that was", got)
	}
	n.eventually("red", func() bool { return n.do(root, n.varvel("status")...).code == 1 })
	n.healthy(false, "audit-")
	// Now everything is used up, and nothing happens that is not recorded.
	n.eventually("reads are refused", func() bool { return strings.HasSuffix(s.do(look...).stdout, "503") })
	n.must(root, "rm", state+"/ballast")
	n.eventually("green again", func() bool { return n.do(root, n.varvel("status")...).code == 0 })
	n.must(alice, n.run("bot", "true")...)
	n.must(root, n.varvel("audit", "verify", "--dir", state+"/audit")...)
	if n.sink.unlisted() != 0 || n.tool.count("/drop full") != 0 {
		t.Error("what was refused has arrived")
	}
}
