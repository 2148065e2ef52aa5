package testutil

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// exitLeak is the exit status of a test binary whose tests passed but leaked.
const exitLeak = 99

// Main runs the tests of a package and then looks for goroutines and file
// descriptors that they left behind. It does not return. Use it as
//
//	func TestMain(m *testing.M) { testutil.Main(m) }
func Main(m *testing.M) {
	warmUp()
	before := Descriptors()
	code := m.Run()
	if code == 0 {
		code = leaks(before)
	}
	os.Exit(code)
}

// warmUp makes the runtime open what it keeps for good: the network poller.
func warmUp() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	_ = r.Close()
	_ = w.Close()
}

func leaks(before map[int]string) int {
	code := 0
	if err := goleak.Find(); err != nil {
		fmt.Fprintf(os.Stderr, "tests leaked goroutines: %v\n", err)
		code = exitLeak
	}
	if lost := LeakedDescriptors(before, time.Second); len(lost) > 0 {
		fmt.Fprintf(os.Stderr, "tests leaked file descriptors:\n\t%s\n", strings.Join(lost, "\n\t"))
		code = exitLeak
	}
	return code
}

// Descriptors returns what each open file descriptor of the process refers to,
// as /proc/self/fd has it.
func Descriptors() map[int]string {
	open := map[int]string{}
	paths, _ := filepath.Glob("/proc/self/fd/*")
	for _, path := range paths {
		target, err := os.Readlink(path)
		if err != nil {
			continue // it was the one that read the directory
		}
		if fd, err := strconv.Atoi(filepath.Base(path)); err == nil {
			open[fd] = target
		}
	}
	return open
}

// LeakedDescriptors returns the descriptors that are open now and were not, or
// were something else, before. It gives those that are being closed some time.
func LeakedDescriptors(before map[int]string, patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for {
		var lost []string
		for fd, target := range Descriptors() {
			if before[fd] != target && !ownedByRuntime(target) {
				lost = append(lost, fmt.Sprintf("%d -> %s", fd, target))
			}
		}
		if len(lost) == 0 || time.Now().After(deadline) {
			sort.Strings(lost)
			return lost
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ownedByRuntime knows descriptors that Go opens once and keeps: the poller,
// and the handle by which os.StartProcess tries whether pidfds work.
func ownedByRuntime(target string) bool {
	return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]"
}
