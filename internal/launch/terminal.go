package launch

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// terminal is the caller's terminal: which of the standard descriptors it is,
// and its state. The descriptors stay the caller's.
type terminal struct {
	in   int  // to read from, or -1
	out  int  // to write to, or -1
	full bool // both standard input and output are it: all keys are the command's

	mu    sync.Mutex    // guards what follows, and lets no change overtake another
	away  bool          // the command is stopped: the terminal is the shell's
	saved *unix.Termios // the state to put back; nil while it is untouched
}

// findTerminal looks which of the standard descriptors are a terminal.
func findTerminal(stdin, stdout, stderr *os.File) *terminal {
	t := &terminal{in: -1, out: -1}
	withFDs(func(fds []int) error {
		for _, i := range []int{0, 2, 1} { // the last one that is a terminal is written to
			if isTerminal(fds[i]) {
				t.out = fds[i]
			}
		}
		if isTerminal(fds[0]) {
			t.in = fds[0]
			t.full = isTerminal(fds[1])
		}
		return nil
	}, stdin, stdout, stderr)
	return t
}

func (t *terminal) present() bool { return t.out >= 0 }

// size returns the size of the terminal, or the zero Winsize.
func (t *terminal) size() Winsize {
	if !t.present() {
		return Winsize{}
	}
	w, err := unix.IoctlGetWinsize(t.out, unix.TIOCGWINSZ)
	if err != nil {
		return Winsize{}
	}
	return Winsize{w.Row, w.Col, w.Xpixel, w.Ypixel}
}

// foreground reports whether this process may use the terminal. A terminal
// that is not this session's can be used by anyone who has it.
func (t *terminal) foreground() bool {
	group, err := unix.IoctlGetInt(t.out, unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp()
}

// takeKeys makes every key go to the command, if it is the command that has the
// whole terminal and this process may have it now: the pty does what the
// terminal did (termios(3), cfmakeraw).
func (t *terminal) takeKeys() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.away || !t.full || t.saved != nil || !t.foreground() {
		return nil
	}
	state, err := unix.IoctlGetTermios(t.in, unix.TCGETS)
	if err != nil {
		return err
	}
	saved := *state
	state.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	state.Oflag &^= unix.OPOST
	state.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	state.Cflag = state.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	state.Cc[unix.VMIN], state.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(t.in, unix.TCSETSW, state); err != nil {
		return err
	}
	t.saved = &saved
	return nil
}

// giveBack restores the terminal.
func (t *terminal) giveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.restore()
}

// leave restores the terminal and leaves it alone until comeBack.
func (t *terminal) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away = true
	t.restore()
}

func (t *terminal) comeBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.away = false
}

// isAway reports whether the terminal is to be left alone.
func (t *terminal) isAway() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.away
}

// restore puts the state back. The caller holds the lock.
func (t *terminal) restore() {
	if t.saved == nil {
		return
	}
	if t.foreground() {
		unix.IoctlSetTermios(t.in, unix.TCSETSW, t.saved)
	}
	t.saved = nil
}
