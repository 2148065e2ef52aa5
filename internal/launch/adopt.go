package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Keeper holds descriptors under names, in a process that outlives this one.
type Keeper interface {
	// Put has descriptors held in place of what the name has. They stay open
	// until Drop is called.
	Put(name string, conns ...syscall.RawConn) error
	Drop(name string) error
}

// ErrHandOver is the cause (context.Cause) of a Serve that ends and leaves its
// runs to the next daemon.
var ErrHandOver = errors.New("the daemon hands its runs over")

func handingOver(ctx context.Context) bool {
	return ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrHandOver)
}

// RunDeposit is the name under which a Keeper has the daemon's end of init's
// control socket, and a pidfd of init.
func RunDeposit(run string) string { return "run/" + run }

// ClientDeposit is the name under which a Keeper has the connection of the
// client that waits for the command. It is not there if nobody waits.
func ClientDeposit(run string) string { return "client/" + run }

// Adopted is a run that an earlier daemon has started, with what the keeper held
// of it.
type Adopted struct {
	Run    string
	UID    uint32 // of who has started it
	Quiet  bool   // as in its StartRequest
	Init   []int  // the descriptors of RunDeposit
	Client []int  // those of ClientDeposit; none if nobody waits
	// Handle hears of the run's end. Its Started is not called.
	Handle Handle
}

type adoptedSession struct {
	uid uint32
	session
}

// Adopt takes a run over, which Serve then serves. It is called before Serve.
// The descriptors are the server's from then on, also if there is an error.
func (s *Server) Adopt(a Adopted) error {
	if len(a.Init) != 2 || len(a.Client) > 1 {
		closeFDs(append(a.Init, a.Client...))
		return fmt.Errorf("adopt %s: the keeper had %d and %d descriptors of it", a.Run, len(a.Init), len(a.Client))
	}
	if err := checkPidfd(a.Init[1]); err != nil {
		closeFDs(append(a.Init, a.Client...))
		return fmt.Errorf("adopt %s: what the keeper had is no handle of its init: %w", a.Run, err)
	}
	control, err := channelFromFD(a.Init[0])
	if err != nil {
		closeFDs(append(a.Init[1:], a.Client...))
		return fmt.Errorf("adopt %s: %w", a.Run, err)
	}
	var ch *channel
	if len(a.Client) == 1 {
		if ch, err = channelFromFD(a.Client[0]); err != nil {
			control.close()
			closeFDs(a.Init[1:])
			return fmt.Errorf("adopt %s: %w", a.Run, err)
		}
	}
	p := newProcess(control, os.NewFile(uintptr(a.Init[1]), "init"))
	s.adopted = append(s.adopted, adoptedSession{a.UID, session{s, a.Run, ch, p, a.Handle, a.Quiet}})
	return nil
}

// serveAdopted goes on where the earlier daemon was.
func (s *Server) serveAdopted(ctx context.Context, a adoptedSession, count *counter) {
	count.adopt(a.uid)
	defer count.leave(a.uid)
	a.p.follow()
	a.deposit()
	a.run(ctx)
}

// deposit gives the keeper what the run needs to outlive this daemon.
func (x *session) deposit() {
	if x.server.Keeper == nil {
		return
	}
	err := x.put(RunDeposit(x.id), x.p.control.conn, x.p.pidfd)
	if x.ch != nil {
		err = errors.Join(err, x.put(ClientDeposit(x.id), x.ch.conn))
	}
	if err != nil {
		x.server.Log.Warn("the run would not outlive this daemon", "run", x.id, "error", err)
	}
}

func (x *session) put(name string, conns ...syscall.Conn) error {
	var raws []syscall.RawConn
	for _, c := range conns {
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		raws = append(raws, raw)
	}
	return x.server.Keeper.Put(name, raws...)
}

// forget has the keeper let go of something, before this daemon does.
func (x *session) forget(name string) {
	if x.server.Keeper == nil {
		return
	}
	if err := x.server.Keeper.Drop(name); err != nil {
		x.server.Log.Debug("the keeper was not told", "name", name, "error", err)
	}
}

// checkPidfd reports whether a descriptor is a pidfd of a process that this one
// may signal.
func checkPidfd(fd int) error {
	err := unix.PidfdSendSignal(fd, 0, nil, 0)
	if errors.Is(err, unix.ESRCH) { // it has ended
		return nil
	}
	return err
}
