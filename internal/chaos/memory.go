package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/varvel/varvel/internal/workload"
)

// memory is a cgroup that limits a daemon's memory.
type memory struct {
	dir    string
	limit  string // file with the limit
	events string // file with a line "oom_kill N"
	join   bool   // the daemon is moved there; otherwise it is there already
}

// few is too little for any daemon that does something, in bytes.
const few = 512 << 10

// findMemory returns a cgroup of the memory controller, of version 1 or 2
// (Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst).
func (s *site) findMemory() (memory, error) {
	v2 := memory{dir: filepath.Join(s.cgroup, "varvel/daemon"), limit: "memory.max", events: "memory.events"}
	if s.delegate() == nil {
		return v2, nil
	}
	mount, err := memoryMount()
	if err != nil {
		return memory{}, err
	}
	if mount == "" {
		return memory{}, errors.New("this kernel has no memory controller of cgroups, or it may not be used here")
	}
	dir := filepath.Join(mount, filepath.Base(s.dir))
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Remove(dir)); err != nil {
		return memory{}, err
	}
	return memory{dir: dir, limit: "memory.limit_in_bytes", events: "memory.oom_control", join: true}, nil
}

// delegate hands the memory controller of version 2 down to the daemon's cgroup.
func (s *site) delegate() error {
	for _, dir := range []string{s.cgroup, filepath.Join(s.cgroup, "varvel")} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return err
		}
	}
	return nil
}

// memoryMount is where version 1 of the controller is mounted, "" if nowhere.
func memoryMount() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return findMemoryMount(string(mounts)), err
}

// findMemoryMount finds it in proc(5), mountinfo: the last field of a line has
// the controllers.
func findMemoryMount(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		front, back, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(front), strings.Fields(back)
		if len(fields) < 5 || len(super) < 3 || super[0] != "cgroup" {
			continue
		}
		for option := range strings.SplitSeq(super[2], ",") {
			if option == "memory" {
				return fields[4]
			}
		}
	}
	return ""
}

func (s *site) missingMemory() string {
	if _, err := s.findMemory(); err != nil {
		return err.Error()
	}
	return ""
}

// doOOM takes the daemon's memory until the kernel kills it.
func (s *site) doOOM(ctx context.Context) error {
	m, err := s.findMemory()
	if err != nil {
		return err
	}
	before, err := m.squeeze(s.daemon.Pid())
	if err != nil {
		return errors.Join(err, m.free())
	}
	err = s.until(ctx, "the daemon has no memory left", func() (bool, error) {
		// Something to do, which needs memory. Whether it succeeds is no matter.
		ask, cancel := context.WithTimeout(ctx, patience/30)
		defer cancel()
		_ = s.daemon.Varvel(ask, "status").Run()
		return !s.daemon.Alive(), nil
	})
	killed := m.kills() - before
	err = errors.Join(err, s.daemon.Kill())
	if err == nil && killed == 0 {
		err = fmt.Errorf("the daemon has ended, but not for want of memory: %s", s.daemon.Tail())
	}
	return inOrder(func() error { return errors.Join(err, m.free()) }, with(ctx, s.away), with(ctx, s.restart))
}

// squeeze leaves the daemon a little memory. It returns how many processes the
// kernel has killed there so far.
func (m memory) squeeze(daemon int) (killed int, err error) {
	if m.join {
		if err := os.Mkdir(m.dir, 0o755); err != nil {
			return 0, err
		}
		if err := m.write("cgroup.procs", strconv.Itoa(daemon)); err != nil {
			return 0, err
		}
	}
	killed = m.kills()
	return killed, m.write(m.limit, strconv.Itoa(few))
}

// kills is how many processes the kernel has killed for want of memory.
func (m memory) kills() int {
	raw, _ := os.ReadFile(filepath.Join(m.dir, m.events)) // none, if it cannot be read
	for line := range strings.Lines(string(raw)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			killed, _ := strconv.Atoi(n)
			return killed
		}
	}
	return 0
}

// free takes the limit away.
func (m memory) free() error {
	if m.join {
		return workload.Remove(m.dir)
	}
	return m.write(m.limit, "max")
}

func (m memory) write(file, text string) error {
	return os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0)
}
