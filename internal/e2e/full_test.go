package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestFullMap: a run that the kernel has no room for does not start, says so, and
// leaves nothing behind; those that live go on.
func TestFullMap(t *testing.T) {
	n := newRealm(t).newNode(t, options{files: map[string]string{"agents.d/bot.yaml": killAgent}})
	s := n.shell("bot")
	send := []string{bin("client"), "act", "send", "x", "tcp4/" + at(v4(hostListed))}
	if r := s.do(send...); r.code != 0 {
		t.Fatalf("control: %s", r)
	}
	pin := filepath.Join(n.dir, "bpf", "varvel", "map_runs")
	n.must(root, bin("client"), "act", "fill", pin, "full")
	r := n.do(alice, n.run("bot", "true")...)
	if r.code != 125 {
		t.Errorf("a run without room: %s", r)
	}
	contains(t, "a run without room", r.stderr, "no room for another run", "varvel runs")
	if ids := n.runIDs(); len(ids) != 1 {
		t.Errorf("the live runs are %q", ids)
	}
	if dirs, _ := filepath.Glob(filepath.Join(n.cgroup.Path, "varvel", "runs", "run_*")); len(dirs) != 1 {
		t.Errorf("the runs' cgroups are %q", dirs)
	}
	if r := s.do(send...); r.code != 0 {
		t.Errorf("the run that lives, while there is no room: %s", r)
	}
	n.must(root, bin("client"), "act", "fill", pin, "empty")
	n.must(alice, n.run("bot", "true")...)
}

// Commands of bpf(2), and where the test's keys begin: no cgroup has such an id.
const (
	bpfUpdate   = 2
	bpfDelete   = 3
	bpfObjGet   = 7
	bpfNoExist  = 1
	fillerStart = 1 << 60
	fillerMost  = 1 << 20
)

// mapElement is the part of union bpf_attr that is about an element.
type mapElement struct {
	fd    uint32
	_     uint32
	key   uint64
	value uint64
	flags uint64
}

// fillAct fills a pinned map whose keys are 8 bytes, or takes the filling out
// again: fill PIN full|empty.
func fillAct(args []string) error {
	path, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return err
	}
	key, value := new(uint64), make([]byte, 1<<20) // more than any value, for all CPUs
	// The kernel gets numbers, so what they point to must not move.
	var pins runtime.Pinner
	defer pins.Unpin()
	for _, p := range []any{path, key, &value[0]} {
		pins.Pin(p)
	}
	object := struct {
		path      uint64
		fd, flags uint32
	}{path: uint64(uintptr(unsafe.Pointer(path)))}
	fd, err := bpf(bpfObjGet, unsafe.Pointer(&object), unsafe.Sizeof(object))
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	defer unix.Close(fd)
	for *key = fillerStart; *key < fillerStart+fillerMost; *key++ {
		e := mapElement{fd: uint32(fd), key: uint64(uintptr(unsafe.Pointer(key)))}
		command := bpfDelete
		if args[1] == "full" {
			command = bpfUpdate
			e.value, e.flags = uint64(uintptr(unsafe.Pointer(&value[0]))), bpfNoExist
		}
		_, err := bpf(command, unsafe.Pointer(&e), unsafe.Sizeof(e))
		if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOENT) {
			return nil // full, or empty again
		}
		if err != nil {
			return os.NewSyscallError("bpf", err)
		}
	}
	return errors.New("the map does not get full")
}

func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
