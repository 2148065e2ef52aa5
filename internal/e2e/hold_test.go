package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// holdAct opens a connection to each target, says something once, and then only
// reads: hold FILE NETWORK/ADDRESS... Nothing that it sends could be refused, so
// what ends such a connection is a cut. How each ends is written down, and then
// how it goes to connect again.
func holdAct(args []string) error {
	failed := make(chan error)
	for i := 0; i+1 < len(args); i += 2 {
		go func() { failed <- holdOne(args[i], args[i+1]) }()
	}
	return <-failed
}

func holdOne(file, target string) error {
	network, address, _ := strings.Cut(target, "/")
	conn, err := net.DialTimeout(network, address, 5*time.Second)
	if err == nil {
		err = exchange(conn, "hold", 5*time.Second)
	}
	if err == nil {
		if err := note(file, "open"); err != nil {
			return err
		}
		_ = conn.SetDeadline(time.Time{})
		_, err = conn.Read(make([]byte, 1))
	}
	if err := note(file, "%s", outcome(err)); err != nil {
		return err
	}
	return keep(file+again, target) // until the test ends it
}

// again is the end of the name of the file that says how attempts to connect once
// more go.
const again = ".again"

// held are the connections of a run that only reads.
type held struct {
	n    *node
	list []kept
	cli  *background
}

// hold starts a run that holds a connection to each target.
func (n *node) hold(agent string, targets ...string) *held {
	n.t.Helper()
	h := &held{n: n}
	act := []string{bin("client"), "act", "hold"}
	for i, target := range targets {
		file := filepath.Join(n.dir, "shared", fmt.Sprintf("held-%s-%d", agent, i))
		h.list = append(h.list, kept{target, file})
		act = append(act, file, target)
	}
	h.cli = n.begin(alice, n.run(agent, act...)...)
	n.t.Cleanup(func() {
		_ = h.cli.cmd.Process.Signal(syscall.SIGTERM)
		n.await(h.cli)
	})
	for i := range h.list {
		h.becomes(i, "open")
	}
	return h
}

// becomes waits until a connection is said to be that.
func (h *held) becomes(i int, want ...string) {
	h.n.t.Helper()
	var is string
	h.n.eventually(h.list[i].target+" becomes "+strings.Join(want, " or "), func() bool {
		b, _ := os.ReadFile(h.list[i].file)
		is = string(b)
		for _, w := range want {
			if is == w {
				return true
			}
		}
		return false
	})
}

// again waits until attempts to connect once more go like that.
func (h *held) again(i int, outcome string) {
	h.n.t.Helper()
	h.n.becomes(kept{h.list[i].target, h.list[i].file + again}, outcome)
}

// stays checks that a connection is open now.
func (h *held) stays(i int) {
	h.n.t.Helper()
	if b, _ := os.ReadFile(h.list[i].file); string(b) != "open" {
		h.n.t.Errorf("%s was to stay open, and is %q", h.list[i].target, b)
	}
}
