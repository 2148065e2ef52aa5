package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Client starts a run and stands in for its command: the same terminal, signals
// and exit status. It is used once.
type Client struct {
	Socket string // path of the launch socket
	Quiet  bool   // say nothing about removed variables, ask for no summary

	Stdin, Stdout, Stderr *os.File // what the command gets, or has its pty connected to
}

// Run starts the command as a run of the agent and returns its exit status when
// it has ended, 128 and the signal's number if by a signal. An error means that
// there is something to tell the user, in a sentence; the status is then the one
// to exit with. If ctx ends, the connection is closed, and the command hung up.
func (c *Client) Run(ctx context.Context, agent string, argv []string) (int, error) {
	r, err := c.request(agent, argv) // before signals are caught: it tells which are ignored
	if err != nil {
		return CodeRefused, err
	}
	// Signals from here on are the command's.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT)
	defer signal.Stop(signals)
	ch, err := c.dial(r)
	if err != nil {
		return CodeRefused, err
	}
	stop := context.AfterFunc(ctx, func() { ch.close() })
	defer stop()
	defer ch.close()
	x := &clientRun{client: c, ch: ch, term: findTerminal(c.Stdin, c.Stdout, c.Stderr), ignored: r.Ignored}
	return x.run(signals)
}

// request says what is to be started. The environment goes as it is: the daemon
// knows what may pass.
func (c *Client) request(agent string, argv []string) (StartRequest, error) {
	cwd, err := workingDirectory()
	if err != nil {
		return StartRequest{}, err
	}
	ignored, err := ignoredSignals()
	if err != nil {
		return StartRequest{}, err
	}
	term := findTerminal(c.Stdin, c.Stdout, c.Stderr)
	r := StartRequest{
		Agent: agent, Argv: argv, Cwd: cwd, Env: os.Environ(), TTY: term.present(), Winsize: term.size(),
		Umask: currentUmask(), Ignored: ignored, Quiet: c.Quiet,
	}
	return r, r.Check()
}

// workingDirectory returns the name that PWD has for it, or the kernel's, which
// needs no right to look at the directory.
func workingDirectory() (string, error) {
	if cwd, err := os.Getwd(); err == nil {
		return cwd, nil
	}
	buf := make([]byte, maxPath)
	n, err := unix.Getcwd(buf)
	cwd := unix.ByteSliceToString(buf[:max(n, 0)])
	if err != nil || !filepath.IsAbs(cwd) { // "(unreachable)" in front: getcwd(2)
		return "", Refuse("The working directory has been removed or is out of reach, so the command cannot start in it. Change to another one.")
	}
	return cwd, nil
}

// currentUmask reads the umask the only portable way, by setting it.
func currentUmask() int {
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	return mask
}

// dial sends the request with the standard descriptors.
func (c *Client) dial(r StartRequest) (*channel, error) {
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("the Varvel daemon does not answer on %s (%w); start it with: systemctl start varveld", c.Socket, err)
	}
	ch := &channel{conn: conn.(*net.UnixConn)}
	err = withFDs(func(fds []int) error { return ch.send(kindStart, r, fds...) }, c.Stdin, c.Stdout, c.Stderr)
	if err != nil {
		ch.close()
		return nil, fmt.Errorf("the start request could not be sent: %w", err)
	}
	return ch, nil
}

// withFDs calls do with the descriptors of files. Unlike File.Fd it does not
// touch their flags.
func withFDs(do func([]int) error, files ...*os.File) error {
	return collectFDs(do, nil, files)
}

func collectFDs(do func([]int) error, fds []int, files []*os.File) error {
	if len(files) == 0 {
		return do(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = collectFDs(do, append(fds, int(fd)), files[1:]) })
	return errors.Join(err, inner)
}

// clientRun is a run seen from its caller.
type clientRun struct {
	client  *Client
	ch      *channel
	term    *terminal
	master  int // of the pty, until the relay takes it over; 0 if there is none
	relay   *relay
	notices []string // for after the end
	begun   bool     // the command has been started
	ignored []int    // signals that the command is started to ignore
}

// startPatience is how long a signal that would end the command may wait for the
// command to be started.
const startPatience = 2 * time.Second

// run serves the run until the command ends.
func (x *clientRun) run(signals <-chan os.Signal) (int, error) {
	defer x.finish()
	frames := make(chan frame)
	ended := make(chan struct{})
	defer close(ended)
	go x.read(frames, ended)
	var giveUp <-chan time.Time
	var last syscall.Signal
	for {
		select {
		case f, ok := <-frames:
			if !ok {
				return CodeRefused, errors.New("the Varvel daemon went away; the command was told to hang up")
			}
			status, done, err := x.obey(f)
			if done || err != nil {
				return status, err
			}
		case s := <-signals:
			x.forward(s)
			if sig, ok := s.(syscall.Signal); ok && x.endsStart(sig) && giveUp == nil {
				giveUp, last = time.After(startPatience), sig
			}
		case <-giveUp:
			if !x.begun {
				return Exit{Signal: int(last)}.Status(), errors.New("interrupted; the Varvel daemon has not answered, see its log")
			}
		}
	}
}

// endsStart reports whether a signal ends a command that has not begun: it has
// no handlers yet.
func (x *clientRun) endsStart(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM:
		return !x.begun && !slices.Contains(x.ignored, int(sig))
	}
	return false
}

// read passes the daemon's frames on until the connection or the run ends.
func (x *clientRun) read(out chan<- frame, ended <-chan struct{}) {
	defer close(out)
	for {
		f, fds, err := x.ch.receive()
		if err != nil {
			return
		}
		if f.kind == kindPty && len(fds) == 1 {
			x.master = fds[0] // read only after the frame has been passed on
		} else {
			closeFDs(fds)
		}
		select {
		case out <- f:
		case <-ended:
			return
		}
	}
}

// obey does what the daemon says. Done means that the command has ended.
func (x *clientRun) obey(f frame) (status int, done bool, err error) {
	switch f.kind {
	case kindPty:
		return 0, false, nil
	case kindStarted:
		var m startedMessage
		if err := f.decode(&m); err != nil {
			return CodeRefused, false, err
		}
		return CodeRefused, false, x.started(m)
	case kindStopped:
		var m signalMessage
		if err := f.decode(&m); err != nil {
			return CodeRefused, false, err
		}
		x.suspend(syscall.Signal(m.Signal))
		return 0, false, nil
	case kindNotice:
		var m textMessage
		err := f.decode(&m)
		x.notices = append(x.notices, m.Text)
		return CodeRefused, false, err
	case kindExited:
		var e Exit
		err := f.decode(&e)
		return e.Status(), true, err
	case kindError:
		err := decodeError(f)
		var refusal *StartError
		if errors.As(err, &refusal) {
			return refusal.Code, true, refusal
		}
		return CodeRefused, true, err
	default:
		return CodeRefused, false, fmt.Errorf("%w: daemon sent %q", errFrame, byte(f.kind))
	}
}

// started says what was kept out, and connects the terminal.
func (x *clientRun) started(m startedMessage) error {
	x.begun = true
	if !x.client.Quiet && len(m.Removed) > 0 {
		names := make([]string, len(m.Removed))
		for i, name := range m.Removed {
			names[i] = printable(name)
		}
		fmt.Fprintf(x.client.Stderr, "varvel: removed from the environment: %s\n", strings.Join(names, " "))
	}
	if x.master == 0 {
		return nil
	}
	var err error
	x.relay, err = startRelay(x.term, x.master)
	return err
}

// printable returns text with everything escaped that a terminal could obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r >= 0xa0) && !isBidi(r) && r != '\uFFFD' {
			return r
		}
		return '?'
	}, text)
}

// isBidi reports whether r changes the direction of text (Unicode Standard
// Annex 9), by which it can look like other text.
func isBidi(r rune) bool {
	return r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// forward passes a signal on to the command.
func (x *clientRun) forward(s os.Signal) {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	switch sig {
	case unix.SIGWINCH:
		if x.relay != nil {
			x.ch.send(kindWinsize, x.term.size())
		}
		return
	case unix.SIGCONT:
		x.relay.resume()
	}
	// A connection that is gone is found by its reader.
	x.ch.send(kindSignal, signalMessage{int(sig)})
}

// suspend stops this process because the command was stopped, so that the
// shell gets its terminal back. If it was stopped from the keyboard, so would
// the whole group have been. The shell's SIGCONT comes as a signal.
func (x *clientRun) suspend(sig syscall.Signal) {
	x.relay.pause()
	target := os.Getpid()
	if sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU {
		target = 0
	}
	unix.Kill(target, unix.SIGSTOP)
}

// finish puts the terminal back and says what is left to say.
func (x *clientRun) finish() {
	x.relay.finish()
	for _, text := range x.notices {
		for line := range strings.Lines(text) {
			fmt.Fprintln(x.client.Stderr, printable(strings.TrimSuffix(line, "\n")))
		}
	}
}
