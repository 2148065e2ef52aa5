package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// hook is a place where a program of ours is attached.
type hook struct {
	program string
	attach  ebpf.AttachType
	cgroup  string // path; "" for a tracepoint of the whole machine
	slot    string // tracepoint: the map whose program the attached stub calls
	body    string // tracepoint: the program that belongs into the slot
}

// hooks are all places: on the cgroup of all runs, on the daemon's own, and on
// the machine's tracepoints.
func (c Config) hooks() []hook {
	return []hook{
		{program: "varvel_sock_create", attach: ebpf.AttachCGroupInetSockCreate, cgroup: c.Runs},
		{program: "varvel_sock_release", attach: ebpf.AttachCgroupInetSockRelease, cgroup: c.Runs},
		{program: "varvel_connect4", attach: ebpf.AttachCGroupInet4Connect, cgroup: c.Runs},
		{program: "varvel_connect6", attach: ebpf.AttachCGroupInet6Connect, cgroup: c.Runs},
		{program: "varvel_sendmsg4", attach: ebpf.AttachCGroupUDP4Sendmsg, cgroup: c.Runs},
		{program: "varvel_sendmsg6", attach: ebpf.AttachCGroupUDP6Sendmsg, cgroup: c.Runs},
		{program: "varvel_recvmsg4", attach: ebpf.AttachCGroupUDP4Recvmsg, cgroup: c.Runs},
		{program: "varvel_recvmsg6", attach: ebpf.AttachCGroupUDP6Recvmsg, cgroup: c.Runs},
		{program: "varvel_getpeername4", attach: ebpf.AttachCgroupInet4GetPeername, cgroup: c.Runs},
		{program: "varvel_getpeername6", attach: ebpf.AttachCgroupInet6GetPeername, cgroup: c.Runs},
		{program: "varvel_bind4", attach: ebpf.AttachCGroupInet4Bind, cgroup: c.Runs},
		{program: "varvel_bind6", attach: ebpf.AttachCGroupInet6Bind, cgroup: c.Runs},
		{program: "varvel_sock_ops", attach: ebpf.AttachCGroupSockOps, cgroup: c.Runs},
		{program: "varvel_egress", attach: ebpf.AttachCGroupInetEgress, cgroup: c.Runs},
		{program: "varvel_ingress", attach: ebpf.AttachCGroupInetIngress, cgroup: c.Runs},
		{program: "varvel_accept", attach: ebpf.AttachCGroupSockOps, cgroup: c.Daemon},
		{program: "varvel_exec_stub", attach: ebpf.AttachTraceRawTp, slot: "on_exec", body: "varvel_exec"},
		{program: "varvel_fork_stub", attach: ebpf.AttachTraceRawTp, slot: "on_fork", body: "varvel_fork"},
		{program: "varvel_exit_stub", attach: ebpf.AttachTraceRawTp, slot: "on_exit", body: "varvel_exit"},
	}
}

// attach puts the program of a hook in its place.
func (h hook) attachTo(p *ebpf.Program) (l link.Link, err error) {
	if h.cgroup == "" {
		l, err = link.AttachTracing(link.TracingOptions{Program: p})
	} else {
		l, err = link.AttachCgroup(link.CgroupOptions{Path: h.cgroup, Attach: h.attach, Program: p})
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", h, err)
	}
	return l, nil
}

func (h hook) String() string {
	if h.cgroup == "" {
		return h.program
	}
	return h.program + " to " + h.cgroup
}

// attach puts every program in its place. Tracepoints get their bodies first.
func (k *Kernel) attach() error {
	for _, h := range k.cfg.hooks() {
		if h.slot != "" {
			if err := k.fillSlot(h); err != nil {
				return err
			}
		}
		l, err := h.attachTo(k.objects.programs[h.program])
		if err != nil {
			return err
		}
		k.links[h.program] = l
	}
	return nil
}

// fillSlot has a tracepoint's stub call our program from the next event on.
func (k *Kernel) fillSlot(h hook) error {
	if err := k.objects.maps[h.slot].Put(uint32(0), k.objects.programs[h.body]); err != nil {
		return fmt.Errorf("put %s into its slot: %w", h.body, err)
	}
	return nil
}

// Addresses are bytes in network order; the maps hold them in words as a
// little-endian C program reads them.
func nativeUint32(b []byte) uint32       { return binary.LittleEndian.Uint32(b) }
func putNativeUint32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
