package egress

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"time"

	"github.com/varvel/varvel/internal/workload"
)

// ServeTCP answers the questions of one connection of a run (RFC 7766) and
// closes it: after Limits.Idle without a question, after Limits.Pipeline
// questions, on the first broken message, or when ctx ends. Questions are
// answered one after the other, so a client that sends many without reading
// waits, and costs no memory.
func (s *Server) ServeTCP(ctx context.Context, conn net.Conn, run *workload.Run) {
	defer conn.Close()
	state, ok := s.controller.state(run.CgroupID)
	if !ok {
		s.unknown.Add(1)
		return
	}
	select {
	case state.connections <- struct{}{}:
		defer func() { <-state.connections }()
	default:
		state.count.limited.Add(1)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for range s.limits.Pipeline {
		if !s.exchange(ctx, conn, state) {
			return
		}
	}
}

// exchange reads one question, answers it, and reports whether the connection
// may go on.
func (s *Server) exchange(ctx context.Context, conn net.Conn, state *runState) bool {
	if err := conn.SetDeadline(time.Now().Add(s.limits.Idle)); err != nil {
		return false
	}
	msg, err := readFrame(conn)
	if err != nil {
		return false
	}
	// A run that asks too fast waits here, as long as the connection may idle.
	wait, cancel := context.WithTimeout(ctx, s.limits.Idle)
	defer cancel()
	if err := state.queries.Wait(wait); err != nil {
		state.count.limited.Add(1)
		return false
	}
	q, answer := s.parse(state, msg, maxTCP)
	if q != nil {
		answer = s.reply(ctx, q)
	}
	if answer == nil || conn.SetWriteDeadline(time.Now().Add(s.limits.Idle)) != nil {
		return false
	}
	return writeFrame(conn, answer) == nil
}

// readFrame reads a message with its two-byte length (RFC 1035, section 4.2.2).
func readFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// writeFrame writes a message and its length in one piece.
func writeFrame(w io.Writer, msg []byte) error {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, len(msg)+2), uint16(len(msg)))
	_, err := w.Write(append(framed, msg...))
	return err
}
