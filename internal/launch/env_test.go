package launch

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBuildEnv(t *testing.T) {
	tests := []struct {
		name    string
		caller  []string
		pass    []string
		extra   map[string]string
		env     []string
		removed []string
	}{
		{"nothing", nil, nil, nil, nil, nil},
		{"default", []string{"PATH=/bin", "LC_ALL=C", "TERM=vt100", "DISPLAY=:0"}, nil, nil, []string{"PATH=/bin", "LC_ALL=C", "TERM=vt100"}, []string{"DISPLAY"}},
		{"pass by name and pattern", []string{"APP_A=1", "B=2", "C=3"}, []string{"APP_*", "B"}, nil, []string{"APP_A=1", "B=2"}, []string{"C"}},
		{"extra wins and is not removed", []string{"PWD=/x", "NO_PROXY=y"}, nil, map[string]string{"PWD": "/", "NO_PROXY": "z"}, []string{"NO_PROXY=z", "PWD=/"}, nil},
		{"secret name by pattern", []string{"APP_TOKEN=1"}, []string{"APP_*"}, nil, nil, []string{"APP_TOKEN"}},
		{"secret name by exact name", []string{"GH_TOKEN=1"}, []string{"GH_TOKEN"}, nil, nil, []string{"GH_TOKEN"}},
		{"secret value in a default", []string{"LANG=ghp_0123456789abcdefghijABCDEFGHIJ012345"}, nil, nil, nil, []string{"LANG"}},
		{"loader by pattern", []string{"LD_PRELOAD=/x.so"}, []string{"LD_*", "*"}, nil, nil, []string{"LD_PRELOAD"}},
		{"loader by exact name", []string{"LD_LIBRARY_PATH=/x"}, []string{"LD_LIBRARY_PATH"}, nil, []string{"LD_LIBRARY_PATH=/x"}, nil},
		{"everything", []string{"A=1", "AWS_PROFILE=x", "AWS_REGION=eu"}, []string{"*"}, nil, []string{"A=1", "AWS_REGION=eu"}, []string{"AWS_PROFILE"}},
		{"no spoofing", []string{"VARVEL_RUN_ID=run_0"}, []string{"VARVEL_*"}, nil, nil, []string{"VARVEL_RUN_ID"}},
		{"the first counts", []string{"TZ=1", "TZ=2"}, nil, nil, []string{"TZ=1"}, nil},
		{"no form", []string{"", "=x", "novalue"}, []string{"*"}, nil, nil, nil},
		{"shell's own", []string{"_=/bin/x", "SHLVL=2", "OLDPWD=/"}, nil, nil, nil, nil},
		{"bad pattern", []string{"A=1"}, []string{"[", "A["}, nil, nil, []string{"A"}},
		{"exported function", []string{"BASH_FUNC_x%%=() { :; }"}, []string{"*"}, nil, nil, []string{"BASH_FUNC_x%%"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env, removed := BuildEnv(secretForms(), tt.caller, tt.pass, tt.extra)
			if diff := cmp.Diff(tt.env, env); diff != "" {
				t.Errorf("environment: %s", diff)
			}
			if diff := cmp.Diff(tt.removed, removed); diff != "" {
				t.Errorf("removed: %s", diff)
			}
		})
	}
}

func TestSecretName(t *testing.T) {
	for name, want := range map[string]bool{
		"GITHUB_TOKEN": true, "client_secret": true, "PGPASSWORD": true, "MYSQL_PWD": true, "DB_PASS": true, "OPENAI_API_KEY": true,
		"APIKEY": true, "GOOGLE_APPLICATION_CREDENTIALS": true, "AWS_PROFILE": true, "NPM_AUTH": true, "REGISTRY_AUTH": true,
		"SSH_KEY_PATH": true, "SENTRY_DSN": true, "GH_PAT": true, "AWS_REGION": false, "PWD": false, "OLDPWD": false,
		"TOKENIZERS_PARALLELISM": false, "PATH": false, "KEYBOARD": false, "MONKEY": false, "COMPASS": false, "PATIENCE": false,
	} {
		if got := secretName(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestSecretValue(t *testing.T) {
	forms := secretForms()
	long := strings.Repeat("a1B2", 10)
	for value, want := range map[string]bool{
		"AKIAIOSFODNN7EXAMPLE": true, "x ASIAIOSFODNN7EXAMPLE": true, "ghp_" + long: true, "github_pat_" + long: true,
		"glpat-" + long: true, "sk-" + long: true, "sk-ant-api03-" + long: true, "sk_live_" + long: true, "xoxb-123456789-abc": true,
		"eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.": true, "-----BEGIN OPENSSH PRIVATE KEY-----\nx": true,
		"postgres://u:p@host/db": true, "https://u:p@h": true, "before https://u:p@h after": true, "http://u:p%zz@h": true,
		"Bearer abc": true, "hvs." + long: true, "Server=x;Password=hunter2;": true, "AIza" + long: true,
		"https://h/path": false, "https://user@h": false, "git@github.com:x/y": false, "en_GB.UTF-8": false, "/usr/bin:/bin": false,
		"xterm-256color": false, "task-sk-small": false, "": false, "a@b://c": false,
	} {
		if got := secretValue(forms, value); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
