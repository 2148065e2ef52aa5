package launch

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// secretName reports whether a variable's name says that it holds a secret. The
// comparison knows no case.
func secretName(name string) bool {
	name = strings.ToUpper(name)
	if slices.Contains(harmlessNames(), name) {
		return false
	}
	return slices.ContainsFunc(secretNames(), func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok
	})
}

// harmlessNames returns names that look like secrets and are none. PWD and
// OLDPWD are directories, the two of AWS name a region, and the last is a switch
// of a library.
func harmlessNames() []string {
	return []string{"PWD", "OLDPWD", "AWS_REGION", "AWS_DEFAULT_REGION", "TOKENIZERS_PARALLELISM"}
}

func secretNames() []string {
	return []string{
		"*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*", "*PASSPHRASE*", "*PASSCODE*", "*_PASS", "*_PWD",
		"*CREDENTIAL*", "*_KEY", "*_KEY_*", "*APIKEY*", "*PRIVATEKEY*", "*ACCESSKEY*", "*_PAT", "*_JWT", "*BEARER*",
		"*_AUTH", "*_AUTH_CONFIG", "*COOKIE*", "*SIGNING_KEY*", "*CONNECTION_STRING*", "*_DSN", "AWS_*",
	}
}

// secretValue reports whether a variable's value has the form of a known kind of
// secret, or is a URL with a password in it. Forms is what secretForms returns.
func secretValue(forms *regexp.Regexp, value string) bool {
	return hasKeyPrefix(value) || forms.MatchString(value) || urlPassword(value)
}

// secretForms finds keys that may stand anywhere in a value. The forms are
// those that the issuers publish for secret scanners.
func secretForms() *regexp.Regexp {
	return regexp.MustCompile(strings.Join([]string{
		`\b(AKIA|ASIA)[0-9A-Z]{16}\b`,                                        // AWS access key id
		`\bgh[pousr]_[0-9A-Za-z]{20,}`,                                       // GitHub
		`\bgithub_pat_[0-9A-Za-z_]{20,}`,                                     // GitHub, fine-grained
		`\bglpat-[0-9A-Za-z_-]{16,}`,                                         // GitLab
		`\bsk-[0-9A-Za-z_-]{16,}`,                                            // OpenAI, Anthropic and others
		`\b[rsp]k_(live|test)_[0-9A-Za-z]{10,}`,                              // Stripe
		`\bxox[abeoprs]-[0-9A-Za-z-]{8,}`,                                    // Slack
		`\bxapp-[0-9A-Za-z-]{8,}`,                                            // Slack, app level
		`\bAIza[0-9A-Za-z_-]{30,}`,                                           // Google API key
		`\bya29\.[0-9A-Za-z_-]{20,}`,                                         // Google OAuth access token
		`\bhv[sbr]\.[0-9A-Za-z_-]{20,}`,                                      // Vault
		`\bnpm_[0-9A-Za-z]{30,}`,                                             // npm
		`\bpypi-[0-9A-Za-z_-]{16,}`,                                          // PyPI
		`\bhf_[0-9A-Za-z]{20,}`,                                              // Hugging Face
		`\bdop_v1_[0-9a-f]{32,}`,                                             // DigitalOcean
		`\bSG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}`,                       // SendGrid
		`\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*`,          // JSON web token
		`-----BEGIN [A-Z ]*PRIVATE KEY`,                                      // PEM
		`AGE-SECRET-KEY-1[0-9A-Z]{20,}`,                                      // age
		`(?i)\b(password|passwd|pwd|accountkey|sharedaccesskey)=[^;&\s]{4,}`, // connection strings
	}, "|"))
}

// hasKeyPrefix finds an Authorization header's value.
func hasKeyPrefix(value string) bool {
	lower := strings.ToLower(value)
	return strings.HasPrefix(lower, "bearer ") || strings.HasPrefix(lower, "basic ")
}

// urlPassword reports whether a word of value is a URL with a password, or with
// a user that is all there is to a token.
func urlPassword(value string) bool {
	if !strings.Contains(value, "://") || !strings.Contains(value, "@") {
		return false
	}
	return slices.ContainsFunc(strings.Fields(value), func(word string) bool {
		u, err := url.Parse(word)
		if err != nil {
			// Not a URL to us, perhaps one to another parser: look at its form.
			_, rest, _ := strings.Cut(word, "://")
			userinfo, _, ok := strings.Cut(rest, "@")
			return ok && strings.Contains(userinfo, ":")
		}
		if u.User == nil {
			return false
		}
		password, ok := u.User.Password()
		return ok && password != ""
	})
}
