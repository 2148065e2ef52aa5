package audit

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// How many bytes of JSON the text in an event takes at most, by what it is. All
// of them together, each at its limit, are less than MaxEvent.
const (
	maxName     = 256
	maxSentence = 512
	maxPath     = 3 << 10
	maxPreview  = 8 << 10
	maxArgument = 1 << 10
	maxCommand  = 4 << 10 // all arguments together
	maxItems    = 10      // of any list
	maxCounts   = 64
	maxArgs     = 64
	maxNumber   = 1<<53 - 1 // what a JSON number holds exactly (RFC 8785, 3.2.2.3)
)

// bound cuts what is too long and masks what looks like a secret, so that no
// workload can make an event fail or fill the log. It does not write through
// pointers and slices that e shares with the caller.
func (m masker) bound(e *Event) {
	for _, s := range []*string{
		&e.Action, &e.Actor, &e.Agent, &e.ApprovalID, &e.Component, &e.Correlation, &e.DecisionID, &e.Digest,
		(*string)(&e.Activity), &e.Owner, &e.PolicyRevision, &e.Revision, &e.ListenSet, &e.RuleSet, &e.Run, &e.Tool, &e.ToolRevision,
	} {
		*s = shorten(*s, maxName)
	}
	e.Message = m.text(e.Message, maxSentence)
	e.Preview = m.text(e.Preview, maxPreview)
	e.Count = min(e.Count, maxNumber)
	e.Counts = boundCounts(e.Counts)
	e.Reasons = boundList(e.Reasons)
	for i := range e.Reasons {
		e.Reasons[i].Rule = shorten(e.Reasons[i].Rule, maxName)
		e.Reasons[i].Text = m.text(e.Reasons[i].Text, maxSentence)
	}
	e.Obligations = boundList(e.Obligations)
	for i := range e.Obligations {
		e.Obligations[i].Name = shorten(e.Obligations[i].Name, maxName)
		e.Obligations[i].Value = m.text(e.Obligations[i].Value, maxSentence)
	}
	m.boundParts(e)
}

func (m masker) boundParts(e *Event) {
	if p := clone(&e.Process); p != nil {
		p.Program = shorten(p.Program, maxPath)
		p.Command = m.command(p.Command)
	}
	if h := clone(&e.HTTP); h != nil {
		h.Method, h.Authority = shorten(h.Method, maxName), shorten(h.Authority, maxName)
		h.Path, h.Query = m.text(h.Path, maxPath), m.text(h.Query, maxPath)
	}
	if d := clone(&e.DNS); d != nil {
		d.Name, d.Type, d.Code = shorten(d.Name, maxSentence), shorten(d.Type, maxName), shorten(d.Code, maxName)
		d.Answers = boundList(d.Answers)
	}
	if a := clone(&e.Approval); a != nil {
		a.Reason, a.Outcome, a.Presence = m.text(a.Reason, maxSentence), m.text(a.Outcome, maxSentence), shorten(a.Presence, maxName)
		a.Groups = boundList(a.Groups)
		for i := range a.Groups {
			a.Groups[i] = shorten(a.Groups[i], maxName)
		}
	}
	if c := clone(&e.Credential); c != nil {
		c.Audience, c.LeaseID = shorten(c.Audience, maxSentence), shorten(c.LeaseID, maxName)
	}
	if t := clone(&e.Target); t != nil {
		t.Name, t.Protocol = shorten(t.Name, maxSentence), shorten(t.Protocol, maxName)
	}
	if p := clone(&e.Person); p != nil {
		p.Issuer, p.Subject = shorten(p.Issuer, maxSentence), shorten(p.Subject, maxSentence)
	}
	if c := clone(&e.Confidence); c != nil {
		c.Source = shorten(c.Source, maxName)
	}
}

// command bounds each argument and all of them together. An argument after a
// flag that asks for a secret is masked.
func (m masker) command(argv []string) []string {
	out := make([]string, 0, min(len(argv), maxArgs)+1)
	left, masked := maxCommand, false
	for i, arg := range argv {
		if i == maxArgs || left <= 0 {
			out = append(out, fmt.Sprintf("…(+%d arguments)", len(argv)-i))
			break
		}
		next := strings.HasPrefix(arg, "-") && m.secretFlag.MatchString(arg)
		if masked {
			arg = mask
		}
		arg, masked = m.text(arg, min(maxArgument, left)), next
		left -= encodedLen(arg) + len(`"",`)
		out = append(out, arg)
	}
	return slices.Clip(out)
}

// shorten cuts s to n bytes as encoded in JSON, and says how many bytes of s
// are missing.
func shorten(s string, n int) string {
	if len(s)*maxEncoded <= n {
		return s
	}
	size := 0
	for i, r := range s {
		if size += encodedRune(r); size > n {
			return fmt.Sprintf("%s…(+%d bytes)", s[:i], len(s)-i)
		}
	}
	return s
}

// maxEncoded is how many bytes one byte of text takes in JSON at most.
const maxEncoded = 6

// encodedRune returns how many bytes encoding/json makes of r, or more.
func encodedRune(r rune) int {
	switch {
	case r < ' ', r == '\u2028', r == '\u2029', r == utf8.RuneError:
		return maxEncoded
	case r == '"', r == '\\':
		return 2
	}
	return utf8.RuneLen(r)
}

func encodedLen(s string) int {
	n := 0
	for _, r := range s {
		n += encodedRune(r)
	}
	return n
}

func boundList[T any](list []T) []T { return slices.Clone(list[:min(len(list), maxItems)]) }

// boundCounts keeps the first items by name, and adds up the others.
func boundCounts(in map[string]uint64) map[string]uint64 {
	if in == nil {
		return nil
	}
	out := make(map[string]uint64, len(in))
	for i, key := range slices.Sorted(maps.Keys(in)) {
		name := shorten(key, maxName/4)
		if i >= maxCounts {
			name = "other"
		}
		out[name] = min(out[name]+min(in[key], maxNumber), maxNumber)
	}
	return out
}

// clone makes *p point to a copy of what it points to, and returns the copy.
func clone[T any](p **T) *T {
	if *p == nil {
		return nil
	}
	v := **p
	*p = &v
	return &v
}

const mask = "[removed]"

// masker removes what looks like a secret from text that others wrote. It is
// the last net: nothing that Varvel itself holds secret is ever put in an event.
type masker struct {
	rules      []maskRule
	secretFlag *regexp.Regexp
}

// maskRule applies to text that contains one of the hints, which is cheap to
// find out. The hints are in lower case.
type maskRule struct {
	hints []string
	re    *regexp.Regexp
	with  string
}

func newMasker() masker {
	names := []string{"token", "secret", "passw", "passphrase", "apikey", "api_key", "api-key", "access_key", "access-key", "credential", "signature"}
	named := `(?i)([\w-]*(?:` + strings.Join(names, "|") + `)[\w-]*["']?(?:=|%3d|:)\s*["']?)[^\s&"',;]+`
	return masker{
		secretFlag: regexp.MustCompile(`(?i)^--?[\w-]*(?:` + strings.Join(names, "|") + `)[\w-]*$`),
		rules: []maskRule{
			{[]string{"private key-----"}, regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`), mask},
			{[]string{"bearer", "basic"}, regexp.MustCompile(`(?i)\b(bearer|basic)(\s+|%20|\+)[\w.~+/=%-]{8,}`), "${1} " + mask},
			{[]string{"eyj"}, regexp.MustCompile(`\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)*`), mask},
			{[]string{"://"}, regexp.MustCompile(`(://[^/\s:@]*:)[^/\s@]+@`), "${1}" + mask + "@"},
			{[]string{"akia", "asia"}, regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z0-9]{16}\b`), mask},
			{[]string{"gh", "glpat-", "xox", "hvs.", "sk-", "sk_"}, regexp.MustCompile(`\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hvs\.|sk[-_](?:live_|test_|ant-|proj-)?)[\w-]{16,}`), mask},
			{names, regexp.MustCompile(named), "${1}" + mask},
		},
	}
}

// text masks and shortens s, in this order, so that no half of a secret stays.
func (m masker) text(s string, n int) string {
	if len(s) < 8 {
		return s
	}
	// More than the limit is looked at, because what is masked gets shorter.
	s = shorten(s, 2*n)
	lower := strings.ToLower(s)
	for _, r := range m.rules {
		if slices.ContainsFunc(r.hints, func(h string) bool { return strings.Contains(lower, h) }) {
			s = r.re.ReplaceAllString(s, r.with)
		}
	}
	return shorten(s, n)
}
