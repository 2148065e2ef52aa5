package measure

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// The table that AttachOneLoad reads has as many lines as host routes of a large
// rule set have: one look-up in these is the least that a judgement can cost.
const (
	lineBits  = 12
	lineBytes = 64
)

// AttachOneLoad is AttachNoop with one exception: connect over IPv4 reads one word
// of a table of 256 KiB, chosen by the address, and allows what finds 0 there,
// which is everything. Closing the result takes the programs away.
func AttachOneLoad(cgroup string) (_ io.Closer, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	table, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "measure", Type: ebpf.Array, KeySize: 4, ValueSize: lineBytes, MaxEntries: 1 << lineBits,
	})
	if err != nil {
		return nil, fmt.Errorf("make a table to read: %w", err)
	}
	defer func() { err = errors.Join(err, table.Close()) }() // the program keeps it
	return attachAll(cgroup, func(h hook) asm.Instructions {
		if h.attach != ebpf.AttachCGroupInet4Connect {
			return nothing()
		}
		return oneLoad(table.FD())
	})
}

func oneLoad(table int) asm.Instructions {
	const userIP4 = 4          // of struct bpf_sock_addr (include/uapi/linux/bpf.h)
	const factor = -0x61c8864f // 0x9e3779b1: spreads addresses
	const refused = "refused"  // label
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, userIP4, asm.Word),
		asm.Mul.Imm32(asm.R2, factor),
		asm.RSh.Imm32(asm.R2, 32-lineBits),
		asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
		asm.LoadMapPtr(asm.R1, table),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, refused),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JNE.Imm(asm.R1, 0, refused),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol(refused),
		asm.Return(),
	}
}
