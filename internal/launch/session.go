package launch

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serveRun reads the request, has it judged, and stays with the run until it
// has ended. It returns an error only if there is no run.
func (s *Server) serveRun(ctx context.Context, ch *channel, peer Peer) error {
	r, stdio, err := receiveRequest(ctx, ch)
	if err != nil {
		return err
	}
	defer func() { closeFDs(stdio) }()
	if err := peer.onHost(); err != nil {
		return err
	}
	spec, err := s.specOf(peer, r, stdio)
	if err != nil {
		return err
	}
	plan, handle, err := s.Starter.Begin(ctx, peer, r)
	if err != nil {
		return err
	}
	removed := spec.follow(s.secrets, plan, r.Env)
	p, err := Start(ctx, spec)
	if err != nil {
		handle.Ended()
		return err
	}
	closeFDs(stdio)
	stdio = nil
	p.Started.Removed = removed
	x := session{s, plan.Run, ch, p, handle, r.Quiet}
	x.deposit()
	x.tell(x.greet())
	handle.Started(p.Started)
	x.run(ctx)
	return nil
}

// receiveRequest reads the first frame, which must be a start request with
// three descriptors that may go into a run.
func receiveRequest(ctx context.Context, ch *channel) (StartRequest, []int, error) {
	ch.conn.SetReadDeadline(time.Now().Add(requestTimeout))
	stop := context.AfterFunc(ctx, func() { ch.close() })
	defer func() {
		if stop() {
			ch.conn.SetReadDeadline(time.Time{})
		}
	}()
	f, fds, err := ch.receive()
	if err != nil {
		return StartRequest{}, nil, Refuse("The start request could not be read: %v.", err)
	}
	r, err := checkRequest(f, fds)
	if err != nil {
		closeFDs(fds)
		return StartRequest{}, nil, err
	}
	return r, fds, nil
}

func checkRequest(f frame, fds []int) (StartRequest, error) {
	var r StartRequest
	switch {
	case f.kind != kindStart:
		return r, Refuse("The first frame is not a start request. The varvel command and the daemon may be of different versions.")
	case len(fds) != 3:
		return r, Refuse("The start request came with %d descriptors instead of 3.", len(fds))
	}
	if err := f.decode(&r); err != nil {
		return r, Refuse("The start request could not be read: %v. The varvel command and the daemon may be of different versions.", err)
	}
	if err := r.Check(); err != nil {
		return r, Refuse("The start request is not valid: %v.", err)
	}
	for i, fd := range fds {
		if err := checkDescriptor(fd); err != nil {
			return r, Refuse("Descriptor %d cannot go into a run: %v.", i, err)
		}
	}
	return r, nil
}

// specOf makes the part of a Spec that follows from who asks for what.
func (s *Server) specOf(peer Peer, r StartRequest, stdio []int) (*Spec, error) {
	l, err := limitsOf(peer)
	if err != nil {
		return nil, err
	}
	spec := &Spec{
		Init: s.Init, Argv: r.Argv, Cwd: r.Cwd, Umask: r.Umask, Ignored: r.Ignored, Winsize: r.Winsize,
		UID: peer.UID, GID: peer.GID, Groups: peer.Groups,
		Homes: homesOf(peer.UID, r.Env), Doors: doorsOf(r.Env), limits: &l,
	}
	for i, fd := range stdio {
		spec.Stdio[i] = fd
		if isTerminal(fd) {
			spec.Stdio[i] = -1
		}
	}
	return spec, nil
}

// homesOf returns the directories that hold the user's credentials: the home of
// the user data base, the one of the caller's environment, and root's.
func homesOf(uid uint32, env []string) []string {
	homes := []string{"/root"}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		homes = append(homes, u.HomeDir)
	}
	for _, e := range env {
		if home, ok := strings.CutPrefix(e, "HOME="); ok {
			homes = append(homes, home)
		}
	}
	return homes
}

// doorsOf returns the sockets that the caller's environment points to.
func doorsOf(env []string) []string {
	names := []string{"SSH_AUTH_SOCK", "DOCKER_HOST", "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS", "TMUX", "GPG_AGENT_INFO"}
	var doors []string
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if !slices.Contains(names, name) {
			continue
		}
		for _, prefix := range []string{"unix://", "unix:path="} {
			value = strings.TrimPrefix(value, prefix)
		}
		value, _, _ = strings.Cut(value, ",") // TMUX and D-Bus append more
		if filepath.IsAbs(value) {
			doors = append(doors, value)
		}
	}
	return doors
}

// follow completes s with what the Starter planned. It returns the names of the
// environment variables that were kept out.
func (s *Spec) follow(secrets *regexp.Regexp, plan Plan, callerEnv []string) []string {
	s.Run, s.Cgroup, s.Netns, s.Files = plan.Run, plan.Cgroup, plan.Netns, plan.Files
	s.Files.ReadOnly = slices.Concat(s.Files.ReadOnly, ownPrograms())
	extra := runEnv(plan.Run, s.Cwd)
	for name, value := range plan.Set {
		extra[name] = value
	}
	env, removed := BuildEnv(secrets, callerEnv, plan.Pass, extra)
	s.Env = env
	return removed
}

// session is a run, and a caller if somebody waits for the command.
type session struct {
	server *Server
	id     string   // of the run
	ch     *channel // nil if nobody waits
	p      *Process
	handle Handle
	quiet  bool
}

// run stays with the run until no process of it is left, or it is handed over
// to the next daemon.
func (x *session) run(ctx context.Context) {
	if x.ch != nil {
		x.attend(ctx)
	}
	x.p.Ignore()
	if !x.wait(ctx) {
		return
	}
	x.forget(RunDeposit(x.id))
	x.handle.Ended()
}

// attend serves the caller until the command ends.
func (x *session) attend(ctx context.Context) {
	in := &incoming{frames: make(chan received), next: make(chan struct{}), gone: make(chan struct{})}
	go in.read(x.ch)
	x.relay(ctx, in)
	if !handingOver(ctx) {
		x.forget(ClientDeposit(x.id))
	}
	x.ch.close()
	close(in.gone)
	for range in.frames { // its reader ends now
	}
}

// greet tells the caller that the command runs, and hands over the pty.
func (x *session) greet() error {
	if x.p.Pty >= 0 {
		err := x.ch.send(kindPty, struct{}{}, x.p.Pty)
		unix.Close(x.p.Pty)
		if err != nil {
			return err
		}
	}
	return x.ch.send(kindStarted, startedMessage{x.id, x.p.Started.Removed, x.p.Started.Missing})
}

// incoming passes the caller's frames on, one at a time. A frame stays in the
// socket until it was passed on, and is taken just before it is obeyed.
type incoming struct {
	frames chan received // closed when nothing more can come
	next   chan struct{} // the last frame was taken
	gone   chan struct{} // nobody wants more
}

// received is a frame that is still in the socket, with its size there.
type received struct {
	frame
	size int
}

func (in *incoming) read(ch *channel) {
	defer close(in.frames)
	for {
		f, size, err := ch.peek()
		if err != nil {
			return
		}
		select {
		case in.frames <- received{f, size}:
		case <-in.gone:
			return
		}
		select {
		case <-in.next:
		case <-in.gone:
			return
		}
	}
}

// relay carries signals in and events out until the command ends, or the daemon
// stops.
func (x *session) relay(ctx context.Context, in *incoming) {
	frames, events, stop := in.frames, x.p.Events(), ctx.Done()
	for {
		select {
		case f, ok := <-frames:
			if ok && x.ch.skip(f.size) == nil && x.obey(f.frame) == nil {
				in.next <- struct{}{}
				continue
			}
			frames = nil
			x.hangUp()
		case e, ok := <-events:
			if x.report(e, ok) {
				return
			}
			x.p.Handled()
		case <-stop:
			if !handingOver(ctx) {
				x.tell(x.ch.send(kindNotice, textMessage{"varvel: the daemon is stopping, so the run ends"}))
				x.hangUp()
			}
			return
		}
	}
}

// obey does what the caller asks for.
func (x *session) obey(f frame) error {
	switch f.kind {
	case kindSignal:
		var m signalMessage
		if err := f.decode(&m); err != nil {
			return err
		}
		return x.p.Signal(m.Signal)
	case kindWinsize:
		var w Winsize
		if err := f.decode(&w); err != nil {
			return err
		}
		return x.p.Resize(w)
	default:
		return fmt.Errorf("%w: caller sent %q", errFrame, byte(f.kind))
	}
}

// report tells the caller what happened to the command, and reports whether
// that was its end. An init that ends without a word was killed, and the
// command with it.
func (x *session) report(e Event, ok bool) (end bool) {
	switch {
	case !ok:
		e.Exited = &Exit{Signal: int(syscall.SIGKILL)}
	case e.Exited == nil:
		x.tell(x.ch.send(kindStopped, signalMessage{e.Stopped}))
		return false
	}
	if text := x.handle.Exited(*e.Exited); text != "" && !x.quiet {
		x.tell(x.ch.send(kindNotice, textMessage{clip(text)}))
	}
	x.tell(x.ch.send(kindExited, e.Exited))
	return true
}

// clip keeps a notice within its frame; JSON escapes make a byte six at most.
func clip(text string) string {
	if most := maxBody/6 - 64; len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// tell notes that the caller did not hear something. A caller that is gone is
// found by its reader.
func (x *session) tell(err error) {
	if err != nil {
		x.server.Log.Debug("caller did not hear", "error", err)
	}
}

// hangUp tells the command that nobody waits for it any more.
func (x *session) hangUp() {
	if err := x.p.Signal(int(syscall.SIGHUP)); err != nil {
		x.server.Log.Warn("run could not be told to hang up", "error", err)
		x.p.Kill()
	}
}

// wait returns when no process of the run is left. If ctx ends first, the run
// gets a grace period and is then killed, or is left to the next daemon: then it
// reports false.
func (x *session) wait(ctx context.Context) (ended bool) {
	select {
	case <-x.p.Done():
		return true
	case <-ctx.Done():
	}
	if handingOver(ctx) {
		return false
	}
	grace := x.server.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-x.p.Done():
		return true
	case <-timer.C:
	}
	x.p.Kill()
	<-x.p.Done()
	return true
}

// checkDescriptor refuses what would be a way out of the run: a directory is
// one of the host's mounts, without masks; a socket of another family than unix
// was born outside the cgroup, so no program judges it; an unconnected unix
// socket can go anywhere; what has no type (an io_uring, a pidfd, a BPF map) is
// a handle on the kernel.
func checkDescriptor(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	switch {
	case err != nil:
		return err
	case flags&unix.O_PATH != 0:
		return errors.New("it is only a path (O_PATH)")
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		return nil
	case unix.S_IFDIR:
		return errors.New("it is a directory")
	case unix.S_IFSOCK:
		return checkSocket(fd)
	default:
		return errors.New("it is neither file, pipe, socket nor device")
	}
}

func checkSocket(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	if domain != unix.AF_UNIX {
		return errors.New("it is a network socket; use a pipe")
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return errors.New("it is a unix socket that is not connected")
	}
	return nil
}

// isTerminal reports whether fd is a terminal. A run never gets one that is not
// its own: a process that outlives the command could read what is typed later.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}
