package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitProgram is the name of the program of init. It lies beside the daemon's.
const InitProgram = "varvel-init"

// The descriptor under which init has its own program, and its path there.
const (
	programFD   = 4
	programPath = "/proc/self/fd/4"
)

// Bounds of asking a program for its build.
const (
	buildTimeout = 10 * time.Second
	maxBuild     = 64 << 10
)

// FindInit opens the program of init in a directory, for [Server.Init]. The error
// says why it cannot be used: it is not there, somebody but root can change it, or
// it is not of this program's build, with which it shares a protocol of their own.
//
// The file stays open and is executed by its descriptor, so it stays the one
// that was looked at, whatever is installed later.
func FindInit(ctx context.Context, dir string) (*os.File, error) {
	path := filepath.Join(dir, InitProgram)
	// Nonblocking, or it would wait for somebody to write to a pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s is a symbolic link", path)
	case err != nil:
		return nil, err
	}
	if err := checkProgram(ctx, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return f, nil
}

// checkProgram looks whether a file may be init. It is executed for that only if
// nobody but root can change it.
func checkProgram(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot be looked at: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return errors.New("is not a regular file")
	case st.Uid != 0:
		return fmt.Errorf("belongs to user %d and not to root", st.Uid)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("can be written by its group or by others (mode %04o)", info.Mode().Perm())
	}
	theirs, err := askBuild(ctx, f)
	if err != nil {
		return fmt.Errorf("does not say of which build it is: %w", err)
	}
	ours, err := build()
	if err != nil {
		return fmt.Errorf("cannot be compared with this program: %w", err)
	}
	if !sameBuild(ours, theirs) {
		return errors.New("is of another build than this program; install both from one build")
	}
	return nil
}

// askBuild executes a program of init to learn its build.
func askBuild(ctx context.Context, f *os.File) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	var answer bounded
	cmd := exec.CommandContext(ctx, programPath)
	cmd.Args, cmd.Env, cmd.Dir = []string{buildName}, []string{}, "/"
	cmd.Stdout, cmd.WaitDelay = &answer, time.Second
	cmd.ExtraFiles = []*os.File{nil, f} // 3 is closed, f is 4, as in a run
	if err := cmd.Run(); err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(answer.text)), nil
}

// bounded is the begin of what is written to it. To write more is an error.
type bounded struct{ text []byte }

func (b *bounded) Write(p []byte) (int, error) {
	if len(b.text)+len(p) > maxBuild {
		return 0, fmt.Errorf("it says more than %d bytes", maxBuild)
	}
	b.text = append(b.text, p...)
	return len(p), nil
}

// ownPrograms returns the files that the daemon and init are executed from, now or
// after the next start. No run may change them, not even one of root, which owns them.
func ownPrograms() []string {
	self, err := os.Executable()
	if err != nil {
		return nil // init protects its own, or there is no run
	}
	return []string{self, filepath.Join(filepath.Dir(self), InitProgram)}
}

// openProgram returns the program of init, and what closes it after use.
func openProgram(given *os.File) (f *os.File, done func(), err error) {
	if given != nil {
		return given, func() {}, nil
	}
	f, err = os.Open("/proc/self/exe")
	if err != nil {
		return nil, nil, fmt.Errorf("open this program: %w", err)
	}
	return f, func() { f.Close() }, nil
}

// buildMain says of which build this program is.
func buildMain() int {
	text, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, "varvel:", err)
		return CodeRefused
	}
	fmt.Println(text)
	return 0
}
