package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Conversation is one end of the pipes between a harness and one of its
// processes. An order is printed in errors, so it should say what it asks for.
type Conversation[Order, Reply any] struct {
	mu  sync.Mutex // one order at a time
	in  *json.Decoder
	out *json.Encoder
}

// message is what became of an order.
type message[Reply any] struct {
	Reply Reply  `json:"reply"`
	Error string `json:"error,omitempty"`
}

// NewConversation speaks on w and listens on r.
func NewConversation[Order, Reply any](r io.Reader, w io.Writer) *Conversation[Order, Reply] {
	return &Conversation[Order, Reply]{in: json.NewDecoder(r), out: json.NewEncoder(w)}
}

// Ask sends an order and waits for its reply. It may be called at any time from
// anywhere.
func (c *Conversation[Order, Reply]) Ask(o Order) (Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var m message[Reply]
	if err := c.out.Encode(o); err != nil {
		return m.Reply, fmt.Errorf("tell a worker to %v: %w", o, err)
	}
	if err := c.in.Decode(&m); err != nil {
		return m.Reply, fmt.Errorf("worker, told to %v: %w", o, err)
	}
	if m.Error != "" {
		return m.Reply, fmt.Errorf("worker, told to %v: %s", o, m.Error)
	}
	return m.Reply, nil
}

// Serve carries out orders until the other end closes.
func (c *Conversation[Order, Reply]) Serve(do func(Order) (Reply, error)) error {
	for {
		var o Order
		if err := c.in.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var m message[Reply]
		var err error
		if m.Reply, err = do(o); err != nil {
			m.Error = err.Error()
		}
		if err := c.out.Encode(m); err != nil {
			return err
		}
	}
}
