package launch

import (
	"encoding/json"
	"os"
)

// Files says what a run does not see of the file system, besides what no run
// sees (see mask.go). Paths are absolute; a path that does not exist when the
// run starts is ignored.
//
// A mask lies on the object that has the name when the run starts. If a process
// outside removes or replaces a masked file while the run lives, the kernel takes
// the mask away with it (fs/namei.c, vfs_rename: detach_mounts), and the run sees
// what is there now. A masked directory is safe from what happens in it: mask the
// directory where a file is replaced often.
type Files struct {
	Hide     []string // Varvel's own directories: masked, whatever Reveal says
	DenyRead []string // files and directories to mask
	ReadOnly []string // files and directories (with all below) to make read-only
	Reveal   []string // well-known credential files that this run may see all the same
}

// Spec is all that it takes to start a run's first process.
type Spec struct {
	Run    string
	Cgroup string   // directory of a fresh cgroup; one that cgroup.kill was written to cannot be used
	Netns  *os.File // the run's network namespace; nil: the caller's
	Init   *os.File // program of init, see FindInit; nil: this one

	Argv  []string
	Env   []string // complete and filtered; see BuildEnv
	Cwd   string
	Umask int
	// Ignored holds the signals that the command is started to ignore.
	Ignored []int
	UID     uint32
	GID     uint32
	Groups  []uint32
	Homes   []string // home directories whose credential files are masked
	Doors   []string // further sockets to mask, such as the caller's ssh agent
	Files   Files

	// Stdio holds the descriptors of standard input, output and error. They
	// stay the caller's. -1 means the run's pty.
	Stdio   [3]int
	Winsize Winsize // of the pty

	limits *limits // nil: those of the daemon
}

// initConfig is what init is told. Arguments, paths and the environment are
// bytes, so they travel as base64.
type initConfig struct {
	Argv    [][]byte  `json:"argv"`
	Env     [][]byte  `json:"env"`
	Cwd     []byte    `json:"cwd"`
	Umask   int       `json:"umask"`
	Ignored []int     `json:"ignored"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	Groups  []uint32  `json:"groups"`
	Homes   [][]byte  `json:"homes"`
	Doors   [][]byte  `json:"doors"`
	Files   wireFiles `json:"files"`
	Pty     [3]bool   `json:"pty"` // which standard descriptors are the pty
	Winsize Winsize   `json:"winsize"`
	Limits  *limits   `json:"limits"`
}

type wireFiles struct {
	Hide     [][]byte `json:"hide"`
	DenyRead [][]byte `json:"deny_read"`
	ReadOnly [][]byte `json:"read_only"`
	Reveal   [][]byte `json:"reveal"`
}

func (f Files) wire() wireFiles {
	return wireFiles{toBytes(f.Hide), toBytes(f.DenyRead), toBytes(f.ReadOnly), toBytes(f.Reveal)}
}

func (f wireFiles) files() Files {
	return Files{toStrings(f.Hide), toStrings(f.DenyRead), toStrings(f.ReadOnly), toStrings(f.Reveal)}
}

// MarshalJSON encodes what init needs of s.
func (s *Spec) MarshalJSON() ([]byte, error) {
	c := initConfig{
		Argv: toBytes(s.Argv), Env: toBytes(s.Env), Cwd: []byte(s.Cwd), Umask: s.Umask, Ignored: s.Ignored,
		UID: s.UID, GID: s.GID, Groups: s.Groups, Homes: toBytes(s.Homes), Doors: toBytes(s.Doors),
		Files: s.Files.wire(), Winsize: s.Winsize, Limits: s.limits,
	}
	for i, fd := range s.Stdio {
		c.Pty[i] = fd < 0
	}
	return json.Marshal(c)
}
