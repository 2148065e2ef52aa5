package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// StartRequest is what a client asks for. Nothing in it says who asks: that
// comes from the kernel, as [Peer].
type StartRequest struct {
	Agent   string   // name of the agent
	Argv    []string // command and arguments; at least one
	Cwd     string   // absolute working directory
	Env     []string // the caller's whole environment, NAME=value; filtered by the daemon
	TTY     bool     // a standard descriptor of the caller is a terminal
	Winsize Winsize  // size of that terminal
	Umask   int      // file mode creation mask, 0 to 0777
	Ignored []int    // signals that the caller was started to ignore, as by nohup(1)
	Quiet   bool     // no end-of-run summary
}

// Winsize is the size of a terminal (ioctl_tty(2), TIOCSWINSZ).
type Winsize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
	X    uint16 `json:"x,omitempty"` // width in pixels
	Y    uint16 `json:"y,omitempty"` // height in pixels
}

// Exit says how the command ended: by itself with Code, or by Signal if that is
// not 0.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// Status returns the exit status that a shell would report: the code, or 128
// and the number of the signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}

// Exit statuses of a command that could not be started (POSIX, Shell Command
// Language, 2.8.2), and of a launcher that failed itself (as env(1) and
// timeout(1) use it).
const (
	CodeNotFound      = 127
	CodeNotExecutable = 126
	CodeRefused       = 125
)

// StartError says why a run did not start. Code is the exit status for the
// caller; Text is a sentence for people.
type StartError struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

// Error returns the sentence.
func (e *StartError) Error() string { return e.Text }

// Refuse returns an error whose text is shown to the caller as it is. A
// [Starter] uses it for refusals; the text of every other error stays in the
// daemon's log.
func Refuse(format string, args ...any) *StartError {
	return &StartError{Code: CodeRefused, Text: fmt.Sprintf(format, args...)}
}

// startedMessage tells of a run that has begun.
type startedMessage struct {
	Run     string   `json:"run,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// signalMessage names a signal by its number.
type signalMessage struct {
	Signal int `json:"signal"`
}

// textMessage is text for the caller's standard error.
type textMessage struct {
	Text string `json:"text"`
}

// Limits of what a request may hold, besides the limit of its frame.
const (
	maxAgentName = 128
	maxPath      = 4096 // PATH_MAX, limits.h
	maxStrings   = 65536
)

// Check reports the first thing in r that cannot be.
func (r *StartRequest) Check() error {
	switch {
	case r.Agent == "" || len(r.Agent) > maxAgentName:
		return errors.New("the request names no agent")
	case len(r.Argv) == 0 || r.Argv[0] == "":
		return errors.New("the request has no command")
	case len(r.Argv) > maxStrings || len(r.Env) > maxStrings:
		return errors.New("the request has too many arguments or environment variables")
	case !filepath.IsAbs(r.Cwd) || len(r.Cwd) > maxPath:
		return errors.New("the working directory is not an absolute path")
	case r.Umask < 0 || r.Umask > 0o777:
		return errors.New("the umask is not between 0 and 0777")
	case !ignorable(r.Ignored):
		return errors.New("a signal is to be ignored that cannot be")
	}
	for _, list := range [][]string{r.Argv, r.Env, {r.Cwd, r.Agent}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return errors.New("the request has a NUL byte in a string")
			}
		}
	}
	return nil
}

// wireRequest is StartRequest in JSON. Arguments, paths and the environment are
// bytes on Linux, not text, so they travel as base64.
type wireRequest struct {
	Agent   string   `json:"agent"`
	Argv    [][]byte `json:"argv"`
	Cwd     []byte   `json:"cwd"`
	Env     [][]byte `json:"env"`
	TTY     bool     `json:"tty"`
	Winsize Winsize  `json:"winsize"`
	Umask   int      `json:"umask"`
	Ignored []int    `json:"ignored,omitempty"`
	Quiet   bool     `json:"quiet"`
}

// MarshalJSON encodes r for the wire.
func (r StartRequest) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireRequest{
		r.Agent, toBytes(r.Argv), []byte(r.Cwd), toBytes(r.Env), r.TTY, r.Winsize, r.Umask, r.Ignored, r.Quiet,
	})
}

// UnmarshalJSON decodes r from the wire, strictly.
func (r *StartRequest) UnmarshalJSON(text []byte) error {
	var w wireRequest
	if err := (frame{kindStart, text}).decode(&w); err != nil {
		return err
	}
	*r = StartRequest{w.Agent, toStrings(w.Argv), string(w.Cwd), toStrings(w.Env), w.TTY, w.Winsize, w.Umask, w.Ignored, w.Quiet}
	return nil
}

func toBytes(in []string) [][]byte {
	out := make([][]byte, len(in))
	for i, s := range in {
		out[i] = []byte(s)
	}
	return out
}

func toStrings(in [][]byte) []string {
	out := make([]string, len(in))
	for i, b := range in {
		out[i] = string(b)
	}
	return out
}
