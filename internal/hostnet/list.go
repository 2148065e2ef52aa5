package hostnet

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes and opcodes of include/uapi/linux/inet_diag.h.
const (
	reqBytecode = 1  // INET_DIAG_REQ_BYTECODE
	cgroupCond  = 13 // INET_DIAG_BC_CGROUP_COND, Linux 5.9
	allStates   = 0xffffffff
)

// kind is one table of sockets that the kernel keeps.
type kind struct{ family, protocol uint8 }

func kinds() []kind {
	return []kind{
		{unix.AF_INET, unix.IPPROTO_TCP}, {unix.AF_INET6, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.IPPROTO_UDP}, {unix.AF_INET6, unix.IPPROTO_UDP},
	}
}

// Sockets returns the TCP and UDP sockets that were born in a cgroup: a socket
// belongs to that cgroup for life, whoever holds it. Sockets that nobody holds
// any more, such as those in TIME_WAIT, have no cgroup and are left out.
func Sockets(cgroupID uint64) ([]Socket, error) {
	var all []Socket
	for _, k := range kinds() {
		found, err := list(k, cgroupID)
		if err != nil {
			return nil, fmt.Errorf("list the sockets of a run: %w", err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// list dumps one table (sock_diag(7)). The kernel runs the filter.
func list(k kind, cgroupID uint64) ([]Socket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(rawData(request(k.family, k.protocol, allStates, nil)))
	req.AddData(nl.NewRtAttr(reqBytecode, bornIn(cgroupID)))
	var found []Socket
	var bad error
	err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(raw []byte) bool {
		s, err := parse(k.protocol, raw)
		if err != nil {
			bad = err
			return false
		}
		found = append(found, s)
		return true
	})
	if bad != nil {
		return nil, bad
	}
	return found, err
}

// bornIn is a program of inet_diag's filter language: one instruction, a struct
// inet_diag_bc_op {code u8, yes u8, no u16} and its operand. Jumping over the
// end by four bytes means no (net/ipv4/inet_diag.c, inet_diag_bc_run).
func bornIn(cgroupID uint64) []byte {
	const size = 12
	raw := make([]byte, size)
	raw[0], raw[1] = cgroupCond, size
	binary.NativeEndian.PutUint16(raw[2:], size+4)
	binary.NativeEndian.PutUint64(raw[4:], cgroupID)
	return raw
}

// rawData is a message's payload as it is.
type rawData []byte

// Len implements nl.NetlinkRequestData.
func (d rawData) Len() int { return len(d) }

// Serialize implements nl.NetlinkRequestData.
func (d rawData) Serialize() []byte { return d }
