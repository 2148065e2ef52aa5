package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"sync"
	"time"
)

// Starter judges who may start what, and prepares the ground for a run.
type Starter interface {
	// Begin decides whether peer may start the agent that r names, and prepares
	// the run: a fresh cgroup with everything attached that governs it. A
	// *StartError (see Refuse) is shown to the caller as it is; any other error
	// is logged, and the caller is told to ask the operator. After an error
	// nothing may be left behind.
	Begin(ctx context.Context, peer Peer, r StartRequest) (Plan, Handle, error)
}

// Handle is how the Starter hears of a run that it let begin. The calls come
// one after the other from one goroutine; Ended comes exactly once and last,
// also if the run could not be started.
type Handle interface {
	// Started tells that the command has been executed. The command may have
	// acted before this call: what governs it must be in place when Begin
	// returns.
	Started(Started)
	// Exited tells how the command ended. The run goes on while processes of it
	// are left. The answer is text for the caller, or "".
	Exited(Exit) string
	// Ended tells that no process of the run is left: the cgroup is empty and
	// may be removed.
	Ended()
}

// Started is what is known of a run when its command has been executed.
type Started struct {
	InitPID int      // of the run's init, in the daemon's PID namespace
	Removed []string // names of the environment variables that were kept out
	Missing []string // controls that this kernel does not have
}

// Plan says how the run is to be made.
type Plan struct {
	Run    string            // the run's id
	Cgroup string            // directory of the run's fresh cgroup, in a cgroup2 file system
	Netns  *os.File          // the run's network namespace, open until Ended; nil: the daemon's
	Pass   []string          // environment variables to pass: names or path.Match patterns
	Set    map[string]string // environment variables to add, over what the caller has
	Files  Files
}

// Server serves the launch socket. Its fields are set before Serve and not
// changed after.
type Server struct {
	Starter Starter
	Log     *slog.Logger
	Init    *os.File      // program of init, see FindInit, open until Serve ends; nil: this one
	Grace   time.Duration // between SIGHUP and SIGKILL when Serve ends; 0 means 5 seconds
	Keeper  Keeper        // holds what runs need to outlive this daemon; nil: they don't

	adopted []adoptedSession
	secrets *regexp.Regexp // set by Serve
}

// Bounds of what callers can make the daemon hold.
const (
	maxSessions        = 1024
	maxSessionsPerUser = 256
	requestTimeout     = 10 * time.Second
	defaultGrace       = 5 * time.Second
)

// Listen makes the launch socket at path, which any user may connect to: who
// may do what is judged by the peer's credentials. It refuses to take the place
// of a socket that answers.
func Listen(path string) (*net.UnixListener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another daemon listens on %s; stop it first", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s is in the way and is not a socket; remove it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the old launch socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the launch socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open the launch socket to users: %w", err)
	}
	return l, nil
}

// Serve starts runs until ctx ends or the listener fails. It closes l. When it
// returns, no run that it started or adopted is left, and every Handle had its
// Ended: commands get SIGHUP, and after the grace period runs are killed. But if
// ctx ended because of ErrHandOver, runs go on, with no word to anybody.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	s.secrets = secretForms()
	ctx, cancel := context.WithCancel(ctx)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	count := &counter{byUser: map[uint32]int{}}
	for _, a := range s.adopted {
		sessions.Go(func() { s.serveAdopted(ctx, a, count) })
	}
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case isPassing(err):
			s.Log.Warn("launch socket cannot accept", "error", err)
			sleep(ctx, 50*time.Millisecond)
			continue
		case err != nil:
			return fmt.Errorf("accept on the launch socket: %w", err)
		}
		sessions.Go(func() { s.serveConn(ctx, c, count) })
	}
}

// isPassing reports whether accepting may work again: descriptors may come
// free, and an aborted connection is the caller's business.
func isPassing(err error) bool {
	var e interface{ Temporary() bool }
	return errors.As(err, &e) && e.Temporary()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serveConn serves one connection, from its acceptance to the end of its run.
func (s *Server) serveConn(ctx context.Context, c *net.UnixConn, count *counter) {
	ch := &channel{conn: c}
	defer ch.close()
	peer, err := peerOf(c)
	if err != nil {
		s.refuse(ch, Peer{}, err)
		return
	}
	defer peer.close()
	if !count.enter(peer.UID) {
		s.refuse(ch, peer, Refuse("Too many runs are being held open (%d, or %d of one user). Wait for one to end.", maxSessions, maxSessionsPerUser))
		return
	}
	defer count.leave(peer.UID)
	if err := s.serveRun(ctx, ch, peer); err != nil {
		s.refuse(ch, peer, err)
	}
}

// refuse tells the caller why there is no run.
func (s *Server) refuse(ch *channel, peer Peer, err error) {
	var refusal *StartError
	if !errors.As(err, &refusal) {
		s.Log.Error("run not started", "uid", peer.UID, "pid", peer.PID, "error", err)
		refusal = Refuse("The run could not be started. The reason is in the Varvel daemon's log.")
	} else {
		s.Log.Info("run refused", "uid", peer.UID, "pid", peer.PID, "reason", refusal.Text)
	}
	if err := ch.send(kindError, refusal); err != nil {
		s.Log.Debug("caller did not hear the refusal", "error", err)
	}
}

// counter bounds the sessions, in all and of each user.
type counter struct {
	mu     sync.Mutex
	all    int
	byUser map[uint32]int
}

func (c *counter) enter(uid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= maxSessions || c.byUser[uid] >= maxSessionsPerUser {
		return false
	}
	c.all++
	c.byUser[uid]++
	return true
}

// adopt counts a session that is there already.
func (c *counter) adopt(uid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all++
	c.byUser[uid]++
}

func (c *counter) leave(uid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.byUser[uid]--; c.byUser[uid] == 0 {
		delete(c.byUser, uid)
	}
}
