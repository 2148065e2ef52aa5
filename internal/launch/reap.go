package launch

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forwards reports whether a signal is one that callers may send to a command.
// SIGKILL is not: who wants to end a run for good ends its init.
func forwards(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGCONT, unix.SIGTSTP, unix.SIGALRM, unix.SIGWINCH:
		return true
	}
	return false
}

// toGroup reports whether a signal is one of those that a terminal sends: they
// go to every process of the foreground group, the others to the command alone.
func toGroup(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGCONT, unix.SIGTSTP, unix.SIGWINCH:
		return true
	}
	return false
}

// reaper is what init does while its run lives: it collects dead processes,
// forwards signals and reports on the command.
type reaper struct {
	ch *channel

	mu   sync.Mutex // keeps the command's id valid while a signal is sent
	main int        // process id of the command; 0 after its end
}

func newReaper(ch *channel, main int) *reaper { return &reaper{ch: ch, main: main} }

// run returns when no process of the run is left but init. Its result is the
// exit status of the command.
func (r *reaper) run() int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	signal.Ignore(unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	go r.forwardOwn(signals)
	go r.obey()
	status := 0
	for {
		var ws unix.WaitStatus
		// Waiting without reaping, so that the id stays the command's until
		// nobody can send it a signal any more.
		pid, err := r.next()
		if err == unix.ECHILD {
			return status
		}
		if pid, err = r.collect(pid, &ws); err != nil || pid == 0 {
			continue
		}
		if code, ended := r.report(ws); ended {
			status = code
			hangUpStopped()
		}
	}
}

// next waits until a child has changed and returns its process id.
func (r *reaper) next() (int, error) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return siginfoPID(&info), err
		}
	}
}

// siginfoPID returns si_pid, which x/sys/unix keeps in padding. On 64-bit
// machines it is 16 bytes from the start (include/uapi/asm-generic/siginfo.h).
func siginfoPID(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}

// collect takes the change of a child. It returns 0 if the child is not the
// command.
func (r *reaper) collect(pid int, ws *unix.WaitStatus) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, err := unix.Wait4(pid, ws, unix.WUNTRACED|unix.WNOHANG, nil)
	if err != nil || got != r.main || got == 0 {
		return 0, err
	}
	if !ws.Stopped() {
		r.main = 0
	}
	return got, nil
}

// report tells the daemon how the command fares. A daemon that is gone needs no
// report.
func (r *reaper) report(ws unix.WaitStatus) (code int, ended bool) {
	switch {
	case ws.Stopped():
		r.ch.send(kindStopped, signalMessage{int(ws.StopSignal())})
		return 0, false
	case ws.Signaled():
		e := Exit{Signal: int(ws.Signal())}
		r.ch.send(kindExited, e)
		return e.Status(), true
	default:
		e := Exit{Code: ws.ExitStatus()}
		r.ch.send(kindExited, e)
		return e.Status(), true
	}
}

// forwardOwn passes on what init itself is sent, by an administrator or, as
// leader of the session, by a terminal that hangs up. It lasts as long as init.
func (r *reaper) forwardOwn(signals <-chan os.Signal) {
	for s := range signals {
		if sig, ok := s.(syscall.Signal); ok {
			r.signal(sig)
		}
	}
}

// obey does what the daemon says. When the daemon is gone, nobody waits for the
// command any more.
func (r *reaper) obey() {
	for {
		f, err := r.ch.receivePlain()
		if err != nil {
			r.signal(unix.SIGHUP)
			return
		}
		switch f.kind {
		case kindSignal:
			var m signalMessage
			if f.decode(&m) == nil && forwards(syscall.Signal(m.Signal)) {
				r.signal(syscall.Signal(m.Signal))
			}
		case kindWinsize:
			var w Winsize
			if f.decode(&w) == nil {
				r.resize(w)
			}
		}
	}
}

// signal sends a signal to the command, or to its process group. A stopped
// command that is hung up has to go on to notice.
func (r *reaper) signal(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.main == 0:
	case toGroup(sig):
		unix.Kill(-r.main, sig)
		if sig == unix.SIGHUP {
			unix.Kill(-r.main, unix.SIGCONT)
		}
	default:
		unix.Kill(r.main, sig)
	}
}

// resize sets the size of the session's terminal, if it has one.
func (r *reaper) resize(w Winsize) {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	setWinsize(fd, w)
}
