package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/varvel/varvel/internal/workload"
)

// ErrPins is returned by Open for pins that are there but can't be read: made by
// a version that is too old, or by somebody else.
var ErrPins = errors.New("the pinned programs can't be read")

// held is what an earlier daemon has left in the kernel.
type held struct {
	layout layout
	maps   map[string]*ebpf.Map
	links  map[string]link.Link // by the name of the program

	unpinned []string // what was found without its pin
}

func (o *held) empty() bool { return len(o.links) == 0 && len(o.maps) == 0 }

func (o *held) close() {
	for _, m := range o.maps {
		m.Close()
	}
	for _, l := range o.links {
		l.Close()
	}
}

// detach ends what was not taken over, also if somebody holds it. A link on a
// tracepoint can't be detached, but its slot can be emptied.
func (o *held) detach() error {
	var errs []error
	for _, l := range o.links {
		if err := l.Detach(); err != nil && !errors.Is(err, link.ErrNotSupported) && !errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, err)
		}
	}
	for _, m := range o.maps {
		if m.Type() == ebpf.ProgramArray {
			errs = append(errs, absent(m.Delete(uint32(0))))
		}
	}
	return errors.Join(errs...)
}

// takeMap and takeLink hand one over.
func (o *held) takeMap(name string) *ebpf.Map {
	m := o.maps[name]
	delete(o.maps, name)
	return m
}

func (o *held) takeLink(program string) link.Link {
	l := o.links[program]
	delete(o.links, program)
	return l
}

// findHeld finds what is there: by the pins, and where they lack something, by
// what is attached.
func findHeld(cfg Config) (_ *held, err error) {
	o := &held{maps: map[string]*ebpf.Map{}, links: map[string]link.Link{}}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	if err := o.readPins(cfg.Pins); err != nil {
		return nil, err
	}
	if err := o.dropDead(cfg); err != nil {
		return nil, err
	}
	if err := o.findAttached(cfg); err != nil {
		return nil, err
	}
	if o.empty() {
		return o, nil
	}
	m, ok := o.maps[layoutMap]
	if !ok {
		return nil, fmt.Errorf("%w: it is not known what they are, because %s is missing in %s; end their runs and remove the directory",
			ErrPins, mapPin(layoutMap), cfg.Pins)
	}
	if o.layout, err = readLayout(m); err != nil {
		return nil, err
	}
	return o, o.complete(cfg)
}

func (o *held) readPins(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrPins, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if name, ok := strings.CutPrefix(e.Name(), "map_"); ok {
			if o.maps[name], err = ebpf.LoadPinnedMap(path, nil); err != nil {
				delete(o.maps, name)
				return fmt.Errorf("%w: %s: %w", ErrPins, path, err)
			}
		} else if program, ok := strings.CutPrefix(e.Name(), "link_"); ok {
			if o.links[program], err = link.LoadPinnedLink(path, nil); err != nil {
				delete(o.links, program)
				return fmt.Errorf("%w: %s: %w", ErrPins, path, err)
			}
		} else {
			return fmt.Errorf("%w: %s is not Varvel's", ErrPins, path)
		}
	}
	return nil
}

// dropDead drops links that govern nothing any more.
func (o *held) dropDead(cfg Config) error {
	for _, h := range cfg.hooks() {
		l, ok := o.links[h.program]
		if !ok {
			continue
		}
		attached, err := h.holds(l)
		if err != nil {
			return err
		}
		if !attached {
			o.takeLink(h.program).Close()
		}
	}
	return nil
}

// complete wants every map of the layout. A slot may be missing: without anybody
// who held it the kernel has emptied it, and its stub does nothing. So may a ring,
// which then only programs in a slot used.
func (o *held) complete(cfg Config) error {
	for _, ring := range rings() {
		if o.maps[ring] == nil {
			delete(o.layout, mapPin(ring))
		}
	}
	for _, h := range cfg.hooks() {
		if h.slot != "" && o.maps[h.slot] == nil {
			delete(o.layout, mapPin(h.slot))
			if l := o.takeLink(h.program); l != nil {
				l.Close()
			}
		}
	}
	for pin := range o.layout {
		if name, ok := strings.CutPrefix(pin, "map_"); ok && o.maps[name] == nil {
			return fmt.Errorf("%w: %s is missing in %s, and nothing attached uses it; end the runs and remove the directory",
				ErrPins, pin, cfg.Pins)
		}
	}
	return nil
}

// holds says whether a link attaches a program at this place: its cgroup is still
// the one at the path.
func (h hook) holds(l link.Link) (bool, error) {
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("look at the link of %s: %w", h.program, err)
	}
	if h.cgroup == "" {
		return true, nil
	}
	cg := info.Cgroup()
	if cg == nil {
		return false, nil
	}
	id, err := workload.Inode(h.cgroup)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && cg.CgroupId == id, err
}
