package launch

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultPath is where execvp(3) looks without PATH, less the current directory.
const defaultPath = "/bin:/usr/bin"

// lookUp finds the program of a command as execvp(3) does: in PATH of the run's
// environment, with the rights of the calling process, unless name has a slash.
// The error is a *StartError with the exit status of a shell.
func lookUp(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", execError(name, err)
		}
		return name, nil
	}
	list, found := defaultPath, error(unix.ENOENT)
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			list = value
		}
	}
	for _, dir := range strings.Split(list, ":") {
		// An empty element means the current directory.
		program := filepath.Join(dir, name)
		if dir == "" || dir == "." {
			program = "./" + name
		}
		err := executable(program)
		if err == nil {
			return program, nil
		}
		if err == unix.EACCES && exists(program) {
			found = err
		}
	}
	return "", execError(name, found)
}

// executable reports why path cannot be executed by this process.
func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EACCES
	}
	return unix.Access(path, unix.X_OK)
}

// exists tells a file that may not be executed from one that may not even be
// looked for; shells call the second "not found".
func exists(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil
}

// execError says why a command cannot be executed, in the words and with the
// status of a shell.
func execError(name string, err error) *StartError {
	e := &StartError{Code: CodeNotExecutable, Text: fmt.Sprintf("%s: %v", name, err)}
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		e.Code = CodeNotFound
		e.Text = name + ": command not found"
		if strings.Contains(name, "/") {
			e.Text = name + ": no such file or directory"
		}
	case errors.Is(err, unix.EACCES):
		e.Text = name + ": permission denied"
	}
	return e
}
