package measure

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// hook is a place on a cgroup, and the type of program that goes there.
type hook struct {
	program ebpf.ProgramType
	attach  ebpf.AttachType
}

// hooks are those that making, connecting and using a socket passes.
func hooks() []hook {
	return []hook{
		{ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate},
		{ebpf.CGroupSock, ebpf.AttachCgroupInetSockRelease},
		{ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect},
		{ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect},
		{ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Sendmsg},
		{ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg},
		{ebpf.SockOps, ebpf.AttachCGroupSockOps},
		{ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress},
	}
}

// AttachNoop attaches programs to a cgroup that allow everything and do nothing
// else. Closing the result takes them away.
func AttachNoop(cgroup string) (io.Closer, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	return attachAll(cgroup, func(hook) asm.Instructions { return nothing() })
}

func nothing() asm.Instructions { return asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()} }

// attachAll attaches to each hook what of says.
func attachAll(cgroup string, of func(hook) asm.Instructions) (io.Closer, error) {
	var attached closers
	for _, h := range hooks() {
		l, err := attach(cgroup, h, of(h))
		if err != nil {
			return nil, errors.Join(err, attached.Close())
		}
		attached = append(attached, l)
	}
	return attached, nil
}

func attach(cgroup string, h hook, code asm.Instructions) (link.Link, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "measure", Type: h.program, AttachType: h.attach, License: "GPL", Instructions: code,
	})
	if err != nil {
		return nil, fmt.Errorf("load a program to compare with for %s: %w", h.attach, err)
	}
	defer p.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: h.attach, Program: p})
	if err != nil {
		return nil, fmt.Errorf("attach a program to compare with to %s of %s: %w", h.attach, cgroup, err)
	}
	return l, nil
}

type closers []io.Closer

// Close closes all of them.
func (c closers) Close() error {
	var errs []error
	for _, one := range c {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}
