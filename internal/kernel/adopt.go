package kernel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// adopter takes over from an earlier daemon. Each step that changes something in
// the kernel says how it is undone, so that a failure leaves the old programs in
// force, with their maps and pins. Death in the middle is as good: the pins always
// lead to maps that are complete, and the next Open begins again.
type adopter struct {
	k      *Kernel
	specs  *specs
	want   layout
	old    *held
	before func(step string) error

	replaced map[string]bool                // maps that are made anew
	counted  map[uint64][]abiVarvelCounters // what was copied of the counters, if they are replaced
	repin    bool                           // what is pinned has to change
	fresh    map[string]bool                // programs whose links we made
	used     map[ebpf.MapID]bool            // by the old programs
	undo     []func() error
	programs []*ebpf.Program // the old ones, to go back to
}

func newAdopter(k *Kernel, s *specs, want layout, old *held, before func(string) error) *adopter {
	return &adopter{
		k: k, specs: s, want: want, old: old, before: before,
		replaced: old.layout.replacedBy(want, s.ruleMaps()), fresh: map[string]bool{}, used: map[ebpf.MapID]bool{},
	}
}

// replacedBy says which maps another layout can't share, and those that have no
// meaning without them. rules are the maps that are one thing: see specs.ruleMaps.
func (l layout) replacedBy(want layout, rules []string) map[string]bool {
	out := map[string]bool{}
	others := false // are the rules kept in other maps?
	for pin, h := range want {
		name, isMap := strings.CutPrefix(pin, "map_")
		if !isMap {
			continue
		}
		old, known := l[pin]
		if known && old != h {
			out[name] = true
		}
		others = others || slices.Contains(rules, name) && old != h
	}
	for pin := range l {
		if _, known := want[pin]; !known && strings.HasPrefix(pin, "map_") {
			others = true // for all we know
		}
	}
	if others {
		for _, n := range rules {
			out[n] = true
		}
	}
	if out["sockets"] {
		out["redirects"] = true // a socket takes its entry away, and can't any more
	}
	return out
}

func (a *adopter) run() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, a.rollBack())
		}
		for _, p := range a.programs {
			p.Close()
		}
	}()
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"load", a.load}, {"carry over", a.carryOver}, {"attach what is missing", a.attachMissing}, {"pin", a.pin},
		{"switch the links", a.switchLinks}, {"switch the tracepoints", a.switchSlots}, {"judge anew", a.judgeAnew},
	} {
		if err := a.before(step.name); err != nil {
			return err
		}
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	a.finish()
	return nil
}

func (a *adopter) rollBack() error {
	var errs []error
	for _, undo := range slices.Backward(a.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

func (a *adopter) onFailure(undo func() error) { a.undo = append(a.undo, undo) }

// load loads this build's programs over the maps that it can share.
func (a *adopter) load() (err error) {
	given := map[string]*ebpf.Map{}
	for name := range a.specs.maps() {
		if _, there := a.old.maps[name]; there && !a.replaced[name] {
			given[name] = a.old.takeMap(name)
		}
	}
	if a.k.objects, err = loadObjects(a.specs, given); err != nil {
		return err
	}
	a.repin = len(a.old.unpinned) > 0
	if !maps.Equal(a.old.layout, a.want) {
		a.repin = true
		a.k.objects.maps[layoutMap], err = a.want.store()
	} else {
		a.k.objects.maps[layoutMap] = a.old.takeMap(layoutMap)
	}
	if err != nil {
		delete(a.k.objects.maps, layoutMap)
		return err
	}
	return a.k.bindMaps()
}

// attachMissing keeps the links that are there, and attaches where there is none.
func (a *adopter) attachMissing() error {
	k := a.k
	for _, h := range k.cfg.hooks() {
		pin := linkPin(h.program)
		if l := a.old.links[h.program]; l != nil && a.old.layout[pin] == a.want[pin] {
			k.links[h.program] = a.old.takeLink(h.program)
			continue
		}
		if err := a.before("attach " + h.program); err != nil {
			return err
		}
		if h.slot != "" && (a.replaced[h.slot] || a.old.layout[mapPin(h.slot)] == 0) { // still empty
			if err := k.fillSlot(h); err != nil {
				return err
			}
		}
		l, err := h.attachTo(k.objects.programs[h.program])
		if err != nil {
			return err
		}
		k.links[h.program] = l // not pinned: if we fail, it ends with its descriptor
		a.fresh[h.program], a.repin = true, true
		if _, known := a.old.layout[pin]; known && a.old.links[h.program] == nil {
			k.adoption.Repaired = append(k.adoption.Repaired, h.program)
		}
	}
	a.repin = a.repin || len(a.old.links) > 0
	return nil
}

// pin replaces the pins before any link is switched. Until then the old programs
// and their maps live by the links, which are pinned in both directories.
func (a *adopter) pin() error {
	pins := a.k.cfg.Pins
	if _, err := os.Lstat(pins); err != nil {
		if err := a.k.pin(); err != nil {
			return err
		}
		a.onFailure(func() error { return removePins(pins) })
		return nil
	}
	if !a.repin {
		return nil
	}
	temp, err := a.k.pinBeside()
	if err != nil {
		return err
	}
	a.onFailure(func() error { return removePins(temp) })
	if err := a.before("exchange the pins"); err != nil {
		return err
	}
	if err := exchange(temp, pins); err != nil {
		return err
	}
	a.onFailure(func() error { return exchange(temp, pins) })
	return nil
}

// switchLinks puts the new programs in the place of the old ones, each at once.
func (a *adopter) switchLinks() error {
	for _, h := range a.k.cfg.hooks() {
		if h.cgroup == "" || a.fresh[h.program] {
			continue
		}
		if err := a.before("switch " + h.program); err != nil {
			return err
		}
		if err := a.switchLink(a.k.links[h.program], a.k.objects.programs[h.program]); err != nil {
			return fmt.Errorf("%s: %w", h.program, err)
		}
	}
	return nil
}

func (a *adopter) switchLink(l link.Link, p *ebpf.Program) error {
	info, err := l.Info()
	if err != nil {
		return err
	}
	old, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return err
	}
	a.programs = append(a.programs, old)
	if err := a.noteMaps(old); err != nil {
		return err
	}
	if err := l.Update(p); err != nil {
		return err
	}
	a.onFailure(func() error { return l.Update(old) })
	return nil
}

func (a *adopter) noteMaps(p *ebpf.Program) error {
	info, err := p.Info()
	if err != nil {
		return err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		a.used[id] = true
	}
	return nil
}

// lost says whether what the old programs kept in a map is not in ours. That is so
// also when the daemon before us died after it had pinned new maps, and before it
// had switched all programs.
func (a *adopter) lost(name string) bool {
	id, err := mapID(a.k.objects.maps[name])
	return a.replaced[name] || err == nil && len(a.used) > 0 && !a.used[id]
}

// switchSlots does the same for the tracepoints.
func (a *adopter) switchSlots() error {
	for _, h := range a.k.cfg.hooks() {
		if h.slot == "" {
			continue
		}
		if err := a.before("switch " + h.body); err != nil {
			return err
		}
		slot := a.k.objects.maps[h.slot]
		var old *ebpf.Program
		err := slot.Lookup(uint32(0), &old)
		if err == nil {
			a.programs = append(a.programs, old)
		} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("%s: %w", h.slot, err)
		}
		if err := a.k.fillSlot(h); err != nil {
			return err
		}
		a.onFailure(func() error {
			if old == nil {
				return slot.Delete(uint32(0))
			}
			return slot.Put(uint32(0), old)
		})
	}
	return nil
}

// judgeAnew has every open socket judged by the new programs at its next packet.
func (a *adopter) judgeAnew() error {
	a.k.node.Level = a.k.cfg.Level
	return a.k.bumpGeneration()
}

// finish does what may fail without harm, after the new programs are in force.
func (a *adopter) finish() {
	k := a.k
	k.adoption.Adopted = true
	k.adoption.Unpinned = slices.Sorted(slices.Values(a.old.unpinned))
	k.adoption.Replaced = slices.Sorted(maps.Keys(a.replaced))
	k.adoption.SocketsLost, k.adoption.RulesLost = a.lost("sockets"), a.lost("runs")
	warn := func(what string, err error) {
		if err != nil {
			k.cfg.Log.Warn(what, "error", err)
		}
	}
	warn("what the old programs counted last is lost", a.countRest())
	warn("events that waited are lost", a.countEvents())
	warn("programs of an earlier daemon are left", a.old.detach())
	warn("pins of an earlier daemon are left", removeTemps(k.cfg.Pins))
	warn("rule sets that nobody uses are left", k.sets.removeStrays())
	warn("entries of runs that ended are left", k.removeStrays())
}
