package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/audit"
	"github.com/varvel/varvel/internal/testutil"
)

// patience is how long something may take that has to happen. It is generous,
// because the machine may be busy.
const patience = 30 * time.Second

// node is a machine with Varvel on it.
type node struct {
	*realm
	t       *testing.T
	cgroup  *testutil.Cgroup
	mounts  *os.File // the mount namespace that daemon and clients share
	daemon  *exec.Cmd
	log     string // file
	ended   chan struct{}
	before  string // its mounts before the daemon
	forks   chan func()
	taken   net.Listener    // of the test itself
	from    *testutil.NetNS // where commands are given; nil: on the node
	commons string          // node settings of every test
}

// options are what a test wants of its node beyond the usual.
type options struct {
	node   string            // more lines of varvel.yaml
	files  map[string]string // of the configuration directory
	resolv string            // of the node; "" names the world's name server
	manual bool              // the test starts the daemon
}

// newNode makes a node with a running daemon. At the end of the test the daemon
// is ended, and nothing may be left of it.
func (r *realm) newNode(t *testing.T, o options) *node {
	t.Helper()
	n := &node{realm: r, t: t, cgroup: testutil.NewCgroup(t), log: filepath.Join(r.dir, "daemon.log")}
	if o.resolv == "" {
		o.resolv = "nameserver " + v4(hostNames).String() + "\n"
	}
	n.forks = forker(t)
	n.write("resolv.conf", o.resolv)
	n.write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
	n.write("hosts", "127.0.0.1 localhost\n::1 localhost\n")
	n.separate()
	n.before = n.mountinfo()
	n.commons = fmt.Sprintf(`trust_domain: e2e.test
state_dir: %[1]s/state
run_dir: %[1]s/run
bpffs: %[1]s/bpf
cgroup: %[2]s
admin: { group: nogroup }
`, r.dir, n.cgroup.Path)
	n.configure("varvel.yaml", n.commons+o.node)
	for name, text := range o.files {
		n.configure(name, text)
	}
	t.Cleanup(n.end)
	if !o.manual {
		n.start()
	}
	return n
}

func (n *node) write(name, text string) {
	n.t.Helper()
	file := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		n.t.Fatal(err)
	}
	// Written beside and renamed, so that nobody reads half of it.
	if err := os.WriteFile(file+".new~", []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(file+".new~", file); err != nil {
		n.t.Fatal(err)
	}
}

// configure writes a file of the configuration.
func (n *node) configure(name, text string) { n.t.Helper(); n.write("config/"+name, text) }

// separate gives the node a mount namespace with its own resolver configuration.
func (n *node) separate() {
	n.t.Helper()
	var err error
	testutil.OnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return
		}
		for _, name := range []string{"resolv.conf", "nsswitch.conf", "hosts"} {
			if err = unix.Mount(filepath.Join(n.dir, name), "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
				return
			}
		}
		n.mounts, err = os.Open("/proc/thread-self/ns/mnt")
	})
	if err != nil {
		n.t.Fatalf("make a mount namespace: %v", err)
	}
	n.t.Cleanup(func() { n.mounts.Close() })
}

// mountinfo is what is mounted on the node.
func (n *node) mountinfo() string {
	n.t.Helper()
	var b []byte
	var err error
	testutil.OnThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(int(n.mounts.Fd()), unix.CLONE_NEWNS); err == nil {
			b, err = os.ReadFile("/proc/thread-self/mountinfo")
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// forker runs functions on a thread that lives as long as the test. A program
// that is to end with its parent ends with the thread that has started it
// (prctl(2), PR_SET_PDEATHSIG), and Go's other threads come and go.
func forker(t *testing.T) chan func() {
	work := make(chan func())
	t.Cleanup(func() { close(work) })
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}

// fork starts a program.
func (n *node) fork(cmd *exec.Cmd) {
	n.t.Helper()
	started := make(chan error)
	n.forks <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		n.t.Fatal(err)
	}
}

// user is who does something.
type user struct {
	name   string
	id     int
	groups string // supplementary, as setpriv takes them
}

// The users of the tests; every Linux has them. The group nogroup may open the
// admin socket.
var (
	root     = user{name: "root"}
	alice    = user{name: "nobody", id: 65534} // the requester
	bob      = user{"bin", 2, "65534"}         // an approver
	stranger = user{"games", 5, "12"}          // group man
)

// command is a program on the node, outside of any run.
func (n *node) command(ctx context.Context, as user, argv ...string) *exec.Cmd {
	from := n.realm.node
	if n.from != nil {
		from = n.from
	}
	full := []string{
		"nsenter", "--net=" + from.Path(), fmt.Sprintf("--mount=/proc/%d/fd/%d", os.Getpid(), n.mounts.Fd()),
		"--wdns=" + filepath.Join(n.dir, "shared"), "--",
	}
	if as.id != 0 {
		groups := "--clear-groups"
		if as.groups != "" {
			groups = "--groups=" + as.groups
		}
		full = append(full, "setpriv", fmt.Sprintf("--reuid=%d", as.id), fmt.Sprintf("--regid=%d", as.id), groups, "--")
	}
	cmd := exec.CommandContext(ctx, full[0], append(full[1:], argv...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + filepath.Join(n.dir, "shared")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// result is what became of a program.
type result struct {
	stdout, stderr string
	code           int
}

// String shows the result as evidence.
func (r result) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
}

// do carries out a command to its end.
func (n *node) do(as user, argv ...string) result {
	n.t.Helper()
	return n.await(n.begin(as, argv...))
}

// background is a program under way.
type background struct {
	cmd            *exec.Cmd
	stdout, stderr strings.Builder
	cancel         context.CancelFunc
}

// begin starts a command whose output is kept.
func (n *node) begin(as user, argv ...string) *background {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	b := &background{cmd: n.command(ctx, as, argv...), cancel: cancel}
	b.cmd.Stdout, b.cmd.Stderr = &b.stdout, &b.stderr
	n.fork(b.cmd)
	return b
}

func (n *node) await(b *background) result {
	n.t.Helper()
	defer b.cancel()
	err := b.cmd.Wait()
	r := result{b.stdout.String(), b.stderr.String(), b.cmd.ProcessState.ExitCode()}
	if err != nil && b.cmd.ProcessState == nil {
		n.t.Fatalf("%s: %v", b.cmd, err)
	}
	return r
}

// varvel is a command line of the tool.
func (n *node) varvel(args ...string) []string {
	return append([]string{bin("varvel"), "--socket", filepath.Join(n.dir, "run", "admin.sock")}, args...)
}

// run is a command line that starts a run of an agent.
func (n *node) run(agent string, argv ...string) []string {
	return append(n.varvel("run", "--quiet", "--agent", agent, "--"), argv...)
}

// must carries out a command that has to succeed.
func (n *node) must(as user, argv ...string) string {
	n.t.Helper()
	r := n.do(as, argv...)
	if r.code != 0 {
		n.t.Fatalf("%s\n%s", strings.Join(argv, " "), r)
	}
	return r.stdout
}

// eventually tries until it works, and fails the test if it never does.
func (n *node) eventually(what string, try func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	for !try() {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: not within %s\n%s", what, patience, n.tail())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tail is the end of the daemon's log.
func (n *node) tail() string {
	b, _ := os.ReadFile(n.log)
	return string(b[max(0, len(b)-3000):])
}

// events are those that the tool finds in the log's files, with or without a daemon.
func (n *node) events(filters ...string) []audit.Event {
	n.t.Helper()
	args := append(n.varvel("audit", "-o", "json", "--dir", filepath.Join(n.dir, "state", "audit"), "--limit", "0"), filters...)
	var list []audit.Event
	for line := range strings.Lines(n.must(root, args...)) {
		var e audit.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			n.t.Fatalf("%v: %s", err, line)
		}
		list = append(list, e)
	}
	return list
}

// runIDs are the live runs, as the tool lists them.
func (n *node) runIDs() []string {
	n.t.Helper()
	var runs []struct {
		ID string `json:"id"`
	}
	out := n.must(root, n.varvel("runs", "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &runs); err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	var ids []string
	for _, r := range runs {
		ids = append(ids, r.ID)
	}
	return ids
}

// onlyRun waits for exactly one live run.
func (n *node) onlyRun() (id string) {
	n.t.Helper()
	n.eventually("one run", func() bool {
		ids := n.runIDs()
		if len(ids) == 1 {
			id = ids[0]
		}
		return id != ""
	})
	return id
}

// lines is output that is read while it is written.
type lines struct {
	mu  sync.Mutex
	buf strings.Builder
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is what was written so far.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
