package bench

import (
	"io"

	"github.com/varvel/varvel/internal/rig"
)

// order tells a worker to do something N times.
type order struct {
	Op      string `json:"op"`
	File    string `json:"file,omitempty"`    // of socket addresses
	List    int    `json:"list,omitempty"`    // which of the files, in the order of loading
	Offset  int    `json:"offset,omitempty"`  // first address in the list
	N       int    `json:"n,omitempty"`       // operations, or bytes for throughput
	Address string `json:"address,omitempty"` // host:port
	Name    string `json:"name,omitempty"`    // to ask for, or of a server's certificate
	CA      string `json:"ca,omitempty"`      // file of PEM roots
}

// String is what an order is called in errors.
func (o order) String() string { return o.Op }

// newConversation is one end of the pipes between the benchmark and a worker.
func newConversation(r io.Reader, w io.Writer) *rig.Conversation[order, []float64] {
	return rig.NewConversation[order, []float64](r, w)
}
