package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The objects that are mounted over what a run must not see. They lie in a
// file system of their own that is read-only in the end.
const (
	blankFS   = "/run/.varvel"
	blankFile = blankFS + "/file"
	blankDir  = blankFS + "/dir"
)

// mask hides everything that no run sees, and what the agent's rules hide. What
// is not there is not hidden; it would have to be made on the host first.
func (l *layout) mask() error {
	if err := makeBlanks(); err != nil {
		return err
	}
	if err := makeHosts(); err != nil {
		return fmt.Errorf("make %s: %w", hostsFile, err)
	}
	doors, err := l.doors()
	if err != nil {
		return err
	}
	if err := l.ownPlaces(); err != nil {
		return err
	}
	names := slices.Concat(procMasks(), l.kernelMasks(), doors, l.credentials(), l.rules.DenyRead, l.rules.Hide)
	for _, name := range names {
		if err := hide(name); err != nil {
			return fmt.Errorf("mask %s: %w", name, err)
		}
	}
	return setSuperReadOnly(blankFS)
}

// makeBlanks makes an empty file and an empty directory that nobody may open.
func makeBlanks() error {
	if err := os.Mkdir(blankFS, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", blankFS, "tmpfs", quiet, "mode=0755,size=4k,nr_inodes=8"); err != nil {
		return err
	}
	fd, err := unix.Open(blankFile, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("make %s: %w", blankFile, err)
	}
	unix.Close(fd)
	return os.Mkdir(blankDir, 0)
}

// setSuperReadOnly makes a whole file system read-only, wherever it is mounted.
func setSuperReadOnly(name string) error {
	return mount("", name, "", unix.MS_REMOUNT|unix.MS_RDONLY|quiet, "")
}

// ownPlaces makes sure that Varvel's own directories are where they are said to
// be. One that is not was moved, and the run would see it at its new place. The
// run has a /run of its own.
func (l *layout) ownPlaces() error {
	for _, name := range l.rules.Hide {
		if below(name, "/run", "/var/run") {
			continue
		}
		if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("a directory of Varvel cannot be masked: %w", err)
		}
	}
	return nil
}

// hide mounts a blank over what name leads to. A device is not hidden: the run
// has its own, and a name that leads to /dev/null hides nothing. Neither is the
// root directory, to which a careless link may lead.
func hide(name string) error {
	p, err := findPlace(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return err
	}
	switch {
	case p.kind() == unix.S_IFCHR || p.kind() == unix.S_IFBLK:
		return nil
	case p.stat.Ino == root.Ino && p.stat.Dev == root.Dev:
		return nil
	case p.kind() == unix.S_IFDIR:
		return p.bind(blankDir)
	default:
		return p.bind(blankFile)
	}
}

// credentials returns the files that hold credentials, less those that the run
// may see.
func (l *layout) credentials() []string {
	names := systemCredentials()
	for _, home := range toStrings(l.config.Homes) {
		if !filepath.IsAbs(home) {
			continue
		}
		for _, name := range homeCredentials() {
			names = append(names, filepath.Join(home, name))
		}
	}
	return slices.DeleteFunc(expand(names), func(name string) bool {
		return slices.Contains(l.rules.Reveal, name)
	})
}

// expand replaces patterns by what they match.
func expand(patterns []string) []string {
	var names []string
	dirs := map[string][]string{} // each is read once: /tmp may be large
	for _, p := range patterns {
		matches, err := glob(p, dirs)
		if err != nil { // not a pattern: a home with a bracket in its name
			matches = []string{p}
		}
		names = append(names, matches...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// glob is filepath.Glob, but keeps what it has read of directories in dirs.
func glob(pattern string, dirs map[string][]string) ([]string, error) {
	dir, base := filepath.Split(pattern)
	if strings.ContainsAny(dir, `*?[\`) || !strings.ContainsAny(base, `*?[\`) {
		return filepath.Glob(pattern)
	}
	names, read := dirs[dir]
	if !read {
		if f, err := os.Open(dir); err == nil { // as filepath.Glob, which ignores errors of reading
			names, _ = f.Readdirnames(-1)
			f.Close()
		}
		dirs[dir] = names
	}
	var matches []string
	for _, name := range names {
		ok, err := filepath.Match(base, name)
		if err != nil {
			return nil, err
		}
		if ok {
			matches = append(matches, filepath.Join(dir, name))
		}
	}
	return matches, nil
}

// systemCredentials returns where a system keeps its own secrets.
func systemCredentials() []string {
	return []string{
		"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd", "/var/backups",
		"/etc/ssh/ssh_host_*_key", "/etc/krb5.keytab", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/letsencrypt",
		"/etc/wireguard", "/etc/openvpn", "/etc/ipsec.secrets", "/etc/ipsec.d/private", "/etc/ppp/*-secrets",
		"/etc/NetworkManager/system-connections", "/etc/kubernetes", "/etc/rancher", "/var/lib/kubelet",
		"/var/lib/cloud", "/etc/credstore", "/etc/credstore.encrypted", "/var/lib/systemd/credential.secret",
		"/etc/docker/key.json", "/etc/containers/auth.json", "/etc/vault.d", "/etc/sssd", "/var/lib/sss/secrets",
	}
}

// homeCredentials returns where programs keep a user's credentials, relative to
// the home. A directory is better than a file: a file that a program of the host
// replaces (writes anew and renames) comes out from under its mask.
func homeCredentials() []string {
	return []string{
		".aws", ".ssh", ".azure", ".kube", ".docker", ".gnupg", ".password-store", ".oci", ".aliyun",
		".config/gcloud", ".config/gh", ".config/glab-cli", ".config/hub", ".config/doctl", ".config/op",
		".config/rclone", ".config/containers", ".config/git/credentials", ".config/sops", ".config/age",
		".config/BraveSoftware", ".config/google-chrome", ".config/chromium", ".mozilla", ".local/share/keyrings",
		".netrc", ".git-credentials", ".npmrc", ".yarnrc.yml", ".pypirc", ".vault-token", ".terraform.d/credentials.tfrc.json",
		".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".m2/settings.xml", ".gradle/gradle.properties",
		".pgpass", ".my.cnf", ".mylogin.cnf", ".boto", ".s3cfg", ".databrickscfg", ".fly", ".huggingface",
		".cache/huggingface/token", ".cache/huggingface/stored_tokens", ".config/hcloud", ".config/scw", ".age",
	}
}
