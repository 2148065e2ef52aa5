package kernel

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// attach puts every program in its place: on the cgroup of all runs, on the
// daemon's own, and on the machine's tracepoints.
func (k *Kernel) attach() error {
	onRuns := map[string]ebpf.AttachType{
		"varvel_sock_create":  ebpf.AttachCGroupInetSockCreate,
		"varvel_sock_release": ebpf.AttachCgroupInetSockRelease,
		"varvel_connect4":     ebpf.AttachCGroupInet4Connect,
		"varvel_connect6":     ebpf.AttachCGroupInet6Connect,
		"varvel_sendmsg4":     ebpf.AttachCGroupUDP4Sendmsg,
		"varvel_sendmsg6":     ebpf.AttachCGroupUDP6Sendmsg,
		"varvel_recvmsg4":     ebpf.AttachCGroupUDP4Recvmsg,
		"varvel_recvmsg6":     ebpf.AttachCGroupUDP6Recvmsg,
		"varvel_getpeername4": ebpf.AttachCgroupInet4GetPeername,
		"varvel_getpeername6": ebpf.AttachCgroupInet6GetPeername,
		"varvel_bind4":        ebpf.AttachCGroupInet4Bind,
		"varvel_bind6":        ebpf.AttachCGroupInet6Bind,
		"varvel_sock_ops":     ebpf.AttachCGroupSockOps,
		"varvel_egress":       ebpf.AttachCGroupInetEgress,
		"varvel_ingress":      ebpf.AttachCGroupInetIngress,
	}
	for name, attachType := range onRuns {
		if err := k.attachCgroup(k.cfg.Runs, name, attachType); err != nil {
			return err
		}
	}
	if err := k.attachCgroup(k.cfg.Daemon, "varvel_accept", ebpf.AttachCGroupSockOps); err != nil {
		return err
	}
	for _, name := range []string{"varvel_exec", "varvel_fork", "varvel_exit"} {
		l, err := link.AttachTracing(link.TracingOptions{Program: k.objects.programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		k.links = append(k.links, l)
	}
	return nil
}

func (k *Kernel) attachCgroup(path, name string, attachType ebpf.AttachType) error {
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: path, Attach: attachType, Program: k.objects.programs[name],
	})
	if err != nil {
		return fmt.Errorf("attach %s to %s: %w", name, path, err)
	}
	k.links = append(k.links, l)
	return nil
}

// netnsCookie returns the cookie of this process's network namespace
// (socket(7), SO_NETNS_COOKIE, Linux 5.14).
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("ask for the network namespace's cookie (Linux 5.14 or newer is needed): %w", err)
	}
	return cookie, nil
}

// Addresses are bytes in network order; the maps hold them in words as a
// little-endian C program reads them.
func nativeUint32(b []byte) uint32       { return binary.LittleEndian.Uint32(b) }
func putNativeUint32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
