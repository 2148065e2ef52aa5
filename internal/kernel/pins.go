package kernel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// layoutMap is the name of the map that says what the others are.
const layoutMap = "layout"

func mapPin(name string) string     { return "map_" + name }
func linkPin(program string) string { return "link_" + program }

// Unpin detaches everything that is pinned below dir, also if somebody holds it by
// an Anchor, and takes the pins away. A missing directory is fine.
func Unpin(dir string) error {
	if err := errors.Join(detachPinned(dir), removePins(dir), removeTemps(dir)); err != nil {
		return fmt.Errorf("remove the pinned programs: %w", err)
	}
	return nil
}

// detachPinned does what it can: the pins may be another version's, or anything.
func detachPinned(dir string) error {
	o := &held{maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}}
	defer o.close()
	if err := o.readPins(dir); err != nil && !errors.Is(err, ErrPins) {
		return err
	}
	return o.detach()
}

func removePins(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// removeTemps removes what a daemon that died while it pinned has left.
func removeTemps(dir string) error {
	left, err := filepath.Glob(dir + tempInfix + "*") // dir is our own configuration
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range left {
		errs = append(errs, removePins(l))
	}
	return errors.Join(errs...)
}

const tempInfix = "-new-"

// pin makes the pins beside their place and renames them into it, so that a
// directory with that name is always complete.
func (k *Kernel) pin() error {
	temp, err := k.pinBeside()
	if err != nil {
		return err
	}
	if err := os.Rename(temp, k.cfg.Pins); err != nil {
		return errors.Join(fmt.Errorf("pin in bpffs: %w", err), removePins(temp))
	}
	return nil
}

// pinBeside pins everything into a new directory beside the right one.
func (k *Kernel) pinBeside() (string, error) {
	temp, err := os.MkdirTemp(filepath.Dir(k.cfg.Pins), filepath.Base(k.cfg.Pins)+tempInfix)
	if err != nil {
		return "", fmt.Errorf("pin in bpffs: %w", err)
	}
	if err := k.pinInto(temp); err != nil {
		return "", errors.Join(err, removePins(temp))
	}
	return temp, nil
}

func (k *Kernel) pinInto(dir string) error {
	for name, m := range k.objects.maps {
		if err := pinMap(m, filepath.Join(dir, mapPin(name))); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for program, l := range k.links {
		if err := pinLink(l, filepath.Join(dir, linkPin(program))); err != nil {
			return fmt.Errorf("pin the link of %s: %w", program, err)
		}
	}
	return nil
}

// exchange swaps two directories of pins in one step (renameat2(2), in bpffs since
// Linux 5.16).
func exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange the directories of pins: %w", err)
	}
	return nil
}

// pinMap adds a pin. The library would move one that it knows of.
func pinMap(m *ebpf.Map, path string) error {
	c, err := m.Clone()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

// pinLink is pinMap for a link.
func pinLink(l link.Link, path string) error {
	fd, err := unix.FcntlInt(uintptr(fdOf(l)), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c, err := link.NewFromFD(fd)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	defer c.Close()
	return c.Pin(path)
}

// fdOf is -1 for a link that has no descriptor, which Linux 5.7 and newer never
// give us.
func fdOf(l link.Link) int {
	if l, ok := l.(interface{ FD() int }); ok {
		return l.FD()
	}
	return -1
}

// Anchor is a descriptor that keeps a part of the kernel's side alive while
// somebody holds it.
type Anchor struct {
	Name string // as the pin is called, at most 31 bytes
	FD   int    // belongs to Kernel, and is open until its Close
}

// Anchors are what somebody else has to hold so that the programs stay attached
// also without pins and without this process: every link, and the slots of the
// tracepoints, which the kernel empties when nobody holds them. A new daemon finds
// what is attached by itself; nobody has to give anything back. Call it again
// after Repin.
func (k *Kernel) Anchors() []Anchor {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Anchor
	for _, h := range k.cfg.hooks() {
		out = append(out, Anchor{linkPin(h.program), fdOf(k.links[h.program])})
		if h.slot != "" {
			out = append(out, Anchor{mapPin(h.slot), k.objects.maps[h.slot].FD()})
		}
	}
	return out
}

// CheckPins says what is wrong with the pins, or with what is attached. The rules
// are in force while this process lives as long as only pins are missing; Repin
// makes them again. It is cheap enough for every second.
func (k *Kernel) CheckPins() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return errors.Join(k.checkAttached(), k.checkPinned())
}

func (k *Kernel) checkPinned() error {
	entries, err := os.ReadDir(k.cfg.Pins)
	if err != nil {
		return fmt.Errorf("the pins are gone (%w): the rules end with this process; mount bpffs at %s, or look for who removed them",
			err, filepath.Dir(k.cfg.Pins))
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	var missing []string
	for _, pin := range k.pinNames() {
		if !there[pin] {
			missing = append(missing, pin)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("pins are gone from %s: %v; look for who removed them", k.cfg.Pins, missing)
	}
	return nil
}

func (k *Kernel) pinNames() []string {
	var out []string
	for name := range k.objects.maps {
		out = append(out, mapPin(name))
	}
	for program := range k.links {
		out = append(out, linkPin(program))
	}
	slices.Sort(out)
	return out
}

// checkAttached looks whether the cgroups are still those that the programs were
// attached to. A link lives on when its cgroup is removed, attached to nothing.
func (k *Kernel) checkAttached() error {
	for _, h := range k.cfg.hooks() {
		attached, err := h.holds(k.links[h.program])
		if err != nil {
			return err
		}
		if !attached {
			return fmt.Errorf("the cgroup %s was removed or replaced: %s governs nothing there; look for who did it", h.cgroup, h.program)
		}
	}
	return nil
}

// Repin attaches again what has lost its cgroup, if there is one at its path now,
// and makes the pins again, from what this process holds. An error says why it
// cannot; the rules are then in force only while this process, or a holder of its
// Anchors, lives.
func (k *Kernel) Repin() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.reattach(); err != nil {
		return err
	}
	if err := k.checkMount(); err != nil {
		return err
	}
	if _, err := os.Lstat(k.cfg.Pins); errors.Is(err, os.ErrNotExist) {
		return errors.Join(removeTemps(k.cfg.Pins), k.pin())
	}
	temp, err := k.pinBeside()
	if err != nil {
		return err
	}
	if err := exchange(temp, k.cfg.Pins); err != nil {
		return errors.Join(err, removePins(temp))
	}
	return removeTemps(k.cfg.Pins)
}

func (k *Kernel) reattach() error {
	for _, h := range k.cfg.hooks() {
		attached, err := h.holds(k.links[h.program])
		if err != nil {
			return err
		}
		if attached {
			continue
		}
		l, err := h.attachTo(k.objects.programs[h.program])
		if err != nil {
			return err
		}
		k.links[h.program].Close()
		k.links[h.program] = l
	}
	return nil
}

// checkMount tells whether pins can be made. Without bpffs, mkdir would make an
// ordinary directory that hides nothing and holds nothing.
func (k *Kernel) checkMount() error {
	dir := filepath.Dir(k.cfg.Pins)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("bpffs is not mounted at %s any more; mount it: mount -t bpf bpf %s", dir, dir)
	}
	return nil
}

// bindMaps ties the maps that only user space knows to the attached programs, so
// that who finds one of these finds them too, also without pins
// (BPF_PROG_BIND_MAP, Linux 5.10).
func (k *Kernel) bindMaps() error {
	for _, program := range slices.Sorted(maps.Keys(k.objects.programs)) {
		for _, name := range []string{layoutMap, restMap} {
			if err := k.objects.programs[program].BindMap(k.objects.maps[name]); err != nil {
				return fmt.Errorf("tie the map %s to %s: %w", name, program, err)
			}
		}
	}
	return nil
}
