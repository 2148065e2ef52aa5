package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Offsets in struct bpf_sock_addr and struct __sk_buff (include/uapi/linux/bpf.h).
const (
	addrIP4, addrIP6, addrPort = 4, 8, 24
	skbProtocol                = 16
)

// Flags of BPF_PROG_ATTACH and BPF_LINK_CREATE (include/uapi/linux/bpf.h). On
// cgroups the kernel knows the first since 6.17 and the second since 6.15.
const (
	flagBefore   = 1 << 3
	flagPreorder = 1 << 6
)

// foreignName is what such programs are called.
const foreignName = "somebody_else"

// foreign is a program of somebody else on the same machine.
type foreign struct {
	kind   ebpf.ProgramType
	attach ebpf.AttachType
	code   asm.Instructions
}

// add attaches it to a cgroup, until the test ends or it is taken away.
func (f foreign) add(t testing.TB, cgroup string, flags uint32) (remove func()) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: foreignName, Type: f.kind, AttachType: f.attach, Instructions: f.code, License: "GPL"})
	if err != nil {
		t.Fatalf("load somebody else's program: %+v", err)
	}
	defer prog.Close()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: prog, Attach: f.attach, Flags: flags})
	if errors.Is(err, unix.EINVAL) && flags != 0 {
		t.Skipf("this kernel has no order of programs on a cgroup (flag %d): %v", flags, err)
	}
	if err != nil {
		t.Fatalf("attach somebody else's program: %v", err)
	}
	remove = func() { l.Close() } // it is not pinned
	t.Cleanup(remove)
	return remove
}

// words are an address as a little-endian program reads it.
func words(a netip.Addr) (out []int32) {
	raw := a.AsSlice()
	for i := 0; i < len(raw); i += 4 {
		out = append(out, int32(binary.LittleEndian.Uint32(raw[i:])))
	}
	return out
}

func portWord(p uint16) int32 { return int32(p>>8 | p<<8) }

// rewrite is what a service proxy such as Cilium's does: who asks for a service's
// address gets one of its backends.
func rewrite(attach ebpf.AttachType, from, to netip.AddrPort) foreign {
	offset := int16(addrIP4)
	if from.Addr().Is6() {
		offset = addrIP6
	}
	var code asm.Instructions
	for i, w := range words(from.Addr()) {
		code = append(code, asm.LoadMem(asm.R2, asm.R1, offset+int16(4*i), asm.Word), asm.JNE.Imm32(asm.R2, w, "out"))
	}
	code = append(code, asm.LoadMem(asm.R2, asm.R1, addrPort, asm.Word), asm.JNE.Imm32(asm.R2, portWord(from.Port()), "out"))
	for i, w := range words(to.Addr()) {
		code = append(code, asm.Mov.Imm32(asm.R2, w), asm.StoreMem(asm.R1, offset+int16(4*i), asm.R2, asm.Word))
	}
	code = append(code, asm.Mov.Imm32(asm.R2, portWord(to.Port())), asm.StoreMem(asm.R1, addrPort, asm.R2, asm.Word))
	return foreign{ebpf.CGroupSockAddr, attach, append(code, answer(1, "out")...)}
}

func answer(value int32, label string) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, value).WithSymbol(label), asm.Return()}
}

// verdict answers always the same; errno 0 leaves the kernel's.
func verdict(kind ebpf.ProgramType, attach ebpf.AttachType, value int32) foreign {
	return foreign{kind, attach, asm.Instructions{asm.Mov.Imm(asm.R0, value), asm.Return()}}
}

// retval sets what the call returns, and answers.
func retval(attach ebpf.AttachType, errno unix.Errno, value int32) foreign {
	return foreign{ebpf.CGroupSockAddr, attach, asm.Instructions{
		asm.Mov.Imm(asm.R1, -int32(errno)), asm.FnSetRetval.Call(), asm.Mov.Imm(asm.R0, value), asm.Return(),
	}}
}

// addressDeny is made like systemd's IPAddressDeny= (bpf-firewall): a program of
// a unit's cgroup looks the other end's IPv4 address up in a trie, and drops.
func addressDeny(t testing.TB, attach ebpf.AttachType, denied netip.Prefix) foreign {
	t.Helper()
	trie, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 1, Flags: unix.BPF_F_NO_PREALLOC})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { trie.Close() })
	key := binary.LittleEndian.AppendUint32(nil, uint32(denied.Bits()))
	if err := trie.Put(append(key, denied.Addr().AsSlice()...), uint64(1)); err != nil {
		t.Fatal(err)
	}
	other := int32(16) // destination
	if attach == ebpf.AttachCGroupInetIngress {
		other = 12 // source
	}
	return foreign{ebpf.CGroupSKB, attach, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, portWord(0x0800), "pass"),
		asm.Mov.Imm(asm.R2, other), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -4), asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.StoreImm(asm.RFP, -8, 32, asm.Word),
		asm.LoadMapPtr(asm.R1, trie.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"), asm.Return(),
	}}
}
