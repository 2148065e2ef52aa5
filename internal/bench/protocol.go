package bench

import (
	"encoding/json"
	"fmt"
	"io"
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

// reply is what became of an order.
type reply struct {
	Values []float64 `json:"values"`
	Error  string    `json:"error,omitempty"`
}

// conversation is one end of the pipes between the benchmark and a worker.
type conversation struct {
	in  *json.Decoder
	out *json.Encoder
}

func newConversation(r io.Reader, w io.Writer) *conversation {
	return &conversation{in: json.NewDecoder(r), out: json.NewEncoder(w)}
}

// ask sends an order and waits for its reply.
func (c *conversation) ask(o order) ([]float64, error) {
	if err := c.out.Encode(o); err != nil {
		return nil, fmt.Errorf("tell a worker to %s: %w", o.Op, err)
	}
	var r reply
	if err := c.in.Decode(&r); err != nil {
		return nil, fmt.Errorf("worker, told to %s: %w", o.Op, err)
	}
	if r.Error != "" {
		return nil, fmt.Errorf("worker, told to %s: %s", o.Op, r.Error)
	}
	return r.Values, nil
}

// serve carries out orders until the other end closes.
func (c *conversation) serve(do func(order) ([]float64, error)) error {
	for {
		var o order
		if err := c.in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var r reply
		var err error
		if r.Values, err = do(o); err != nil {
			r.Error = err.Error()
		}
		if err := c.out.Encode(r); err != nil {
			return err
		}
	}
}
