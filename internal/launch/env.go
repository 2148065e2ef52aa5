package launch

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// EndpointURL is where a program in a run finds its credential endpoint.
const EndpointURL = "http://169.254.170.2"

// noProxy lists what a program must never send to an HTTP proxy: itself and the
// endpoint.
const noProxy = "localhost,127.0.0.1,::1,169.254.170.2,fd00:ec2::23"

// defaultPass returns the variables that a program needs to find its way and to
// show text. LC_* goes with them.
func defaultPass() []string {
	return []string{
		"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLORTERM", "LANG", "LC_*",
		"TZ", "PWD", "TMPDIR", "NO_COLOR",
	}
}

// shellState returns what a shell sets for itself, and sets anew when it starts.
func shellState() []string { return []string{"_", "OLDPWD", "SHLVL"} }

// runEnv returns the variables that a run gets besides its caller's.
func runEnv(run, cwd string) map[string]string {
	return map[string]string{
		"PWD": cwd, "VARVEL_RUN_ID": run, "VARVEL_ENDPOINT": EndpointURL,
		"NO_PROXY": noProxy, "no_proxy": noProxy,
	}
}

// BuildEnv returns the environment of a run: what a program needs (PATH, HOME,
// TERM and the like), what pass names, and extra, which wins. An element of pass
// is a name or a path.Match pattern. What has the name or the value of a secret
// never passes (see secret.go), and neither does what was
// inherited under a name that begins with VARVEL_. A variable that makes the
// loader or an interpreter run other code passes only if pass has its exact
// name.
//
// Removed holds the names that did not pass, sorted. What extra replaces is not
// removed, and what shells keep for themselves is not named. Of a name that is there twice, the first counts, as for getenv(3).
// Forms is what secretForms returns; to make it costs more than to use it.
func BuildEnv(forms *regexp.Regexp, callerEnv, pass []string, extra map[string]string) (env, removed []string) {
	seen := map[string]bool{}
	f := envFilter{append(defaultPass(), pass...), forms}
	for _, e := range callerEnv {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if _, replaced := extra[name]; replaced || slices.Contains(shellState(), name) {
			continue
		}
		if f.passes(name, value) {
			env = append(env, e)
		} else {
			removed = append(removed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		env = append(env, name+"="+extra[name])
	}
	slices.Sort(removed)
	return env, removed
}

// envFilter decides about one variable after the other.
type envFilter struct {
	pass    []string
	secrets *regexp.Regexp
}

// passes reports whether a variable of the caller reaches the run.
func (f envFilter) passes(name, value string) bool {
	// Most are not wanted at all, and secrets are dear to recognize.
	if !slices.Contains(f.pass, name) && (!matchesAny(f.pass, name) || runsCode(name)) {
		return false
	}
	return !strings.HasPrefix(name, "VARVEL_") && !secretName(name) && !secretValue(f.secrets, value)
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return err == nil && ok
	})
}

// runsCode reports whether a variable makes a program load or run something
// that its command line does not name (ld.so(8), bash(1), python(1), node(1),
// perlrun(1), java's JAVA_TOOL_OPTIONS).
func runsCode(name string) bool {
	return matchesAny([]string{
		"LD_*", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "BASH_ENV", "ENV", "BASH_FUNC_*", "SHELLOPTS", "PS4",
		"PROMPT_COMMAND", "IFS", "PYTHONSTARTUP", "PYTHONPATH", "PYTHONHOME", "NODE_OPTIONS", "NODE_PATH",
		"PERL5OPT", "PERL5LIB", "PERL5DB", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS",
		"GIT_SSH*", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_*",
	}, name)
}
