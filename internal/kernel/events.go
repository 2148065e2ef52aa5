package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sync/errgroup"
)

// EventKind says what an event is about.
type EventKind string

// The kinds of event that the kernel sends.
const (
	EventDenied    EventKind = "denied"
	EventWouldDeny EventKind = "would-deny" // let through, because the agent is in observe
	EventExec      EventKind = "exec"
	EventExit      EventKind = "exit"
)

// Event is something that the kernel saw a run do.
type Event struct {
	Kind     EventKind
	Since    time.Duration // since boot, CLOCK_BOOTTIME
	CgroupID uint64        // of the run; 0 if it could not be told
	Cookie   uint64        // of the socket
	PID      uint32        // thread group, in the initial PID namespace
	UID      uint32
	Parent   uint32 // thread group of the parent; exec and exit
	Comm     string // as the task calls itself: data, never identity
	Reason   string // why it was refused, such as no-rule
	Hook     string // where, such as connect
	Protocol uint8  // IANA number
	Address  netip.AddrPort
	Local    uint16 // ingress: the run's port; Address is the peer's
	Path     string // exec: the file as it was named, at most 127 bytes
	Status   uint32 // exit: wait status
	Count    uint64 // denied, would-deny: how many refusals it stands for; the others were not sent
}

// rings are the maps of the classes of events (bpf/lib/abi.h, varvel_class).
func rings() []string { return []string{"life", "denials"} }

// Events reads events and gives each to handle, until ctx ends. Those of one
// class come one after the other; handle is called for two classes at the same
// time. Events that found their ring full are counted in Counters. It is called
// once.
func (k *Kernel) Events(ctx context.Context, handle func(Event)) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, ring := range rings() {
		g.Go(func() error { return k.readRing(ctx, ring, &k.flushes[i], handle) })
	}
	return g.Wait()
}

func (k *Kernel) readRing(ctx context.Context, ring string, f *flushes, handle func(Event)) error {
	r, err := ringbuf.NewReader(k.objects.maps[ring])
	if err != nil {
		return fmt.Errorf("read kernel events: %w", err)
	}
	f.open(r.Flush)
	defer f.close()
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	defer r.Close()
	var rec ringbuf.Record
	for {
		err := r.ReadInto(&rec)
		switch {
		case err == nil:
			if e, ok := k.decode(rec.RawSample); ok {
				handle(e)
			}
		case errors.Is(err, ringbuf.ErrFlushed):
			f.done()
		case ctx.Err() != nil || errors.Is(err, os.ErrClosed):
			return nil
		default:
			return fmt.Errorf("read kernel events: %w", err)
		}
	}
}

// Flush returns when every event that the kernel has sent so far was handled, or
// ctx ends, or nobody reads events.
func (k *Kernel) Flush(ctx context.Context) error {
	for i := range k.flushes {
		if err := k.flushes[i].wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// decode turns a record of the ring into an Event. The kernel wrote it, in the
// layout of the generated types.
func (k *Kernel) decode(raw []byte) (Event, bool) {
	if len(raw) < int(unsafe.Sizeof(abiVarvelEvent{})) {
		return Event{}, false
	}
	in := (*abiVarvelEvent)(unsafe.Pointer(&raw[0]))
	e := Event{
		Since: time.Duration(in.Time), CgroupID: in.Run, Cookie: in.Cookie, PID: in.Pid, UID: in.Uid,
		Parent: in.Parent, Comm: text(in.Comm[:]), Protocol: in.Protocol,
		Address: netip.AddrPortFrom(in.Address.addr(), in.Port), Local: in.LocalPort,
		Reason: textOf(k.objects.reasons, in.Reason), Hook: textOf(k.objects.hooks, in.Hook),
	}
	switch abiVarvelEventKind(in.Kind) {
	case abiVarvelEventKindEVENT_DENIED:
		e.Kind, e.Count = EventDenied, uint64(in.Code)
	case abiVarvelEventKindEVENT_WOULD_DENY:
		e.Kind, e.Count = EventWouldDeny, uint64(in.Code)
	case abiVarvelEventKindEVENT_EXIT:
		e.Kind, e.Status = EventExit, in.Code
	case abiVarvelEventKindEVENT_EXEC:
		if len(raw) < int(unsafe.Sizeof(abiVarvelExecEvent{})) {
			return Event{}, false
		}
		e.Kind, e.Path = EventExec, text((*abiVarvelExecEvent)(unsafe.Pointer(&raw[0])).Path[:])
	default:
		return Event{}, false
	}
	return e, true
}

// text is a C string of at most the array's length.
func text(c []int8) string {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), len(c))
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func textOf(texts []string, i uint8) string {
	if int(i) < len(texts) {
		return texts[i]
	}
	return "unknown"
}
