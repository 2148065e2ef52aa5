package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/varvel/varvel/internal/decision"
)

// Bounds of an answer.
const (
	maxList    = 64                  // reasons, obligations, groups, names
	maxText    = 1024                // bytes of a reason's text or an obligation's value
	maxName    = 128                 // bytes of a rule id, a group, a name
	maxQuorum  = 16                  // approvers
	maxExpires = 30 * 24 * time.Hour // of a held action
)

// decode turns what the query returned into a verdict. It accepts the one form
// that package varvel documents; a field more, a field less or another type is
// an error.
func decode(results rego.ResultSet) (decision.Verdict, error) {
	var v decision.Verdict
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return v, errors.New("data.varvel.decision has no value, or several")
	}
	value, ok := results[0].Expressions[0].Value.(ast.Value)
	if !ok {
		return v, errors.New("data.varvel.decision is not a Rego value")
	}
	o, err := object(ast.NewTerm(value), []string{"effect", "reasons", "obligations"}, []string{"need"})
	if err != nil {
		return v, err
	}
	return decodeVerdict(o)
}

func decodeVerdict(o fields) (decision.Verdict, error) {
	effect, err := o.str("effect", maxName)
	if err != nil {
		return decision.Verdict{}, err
	}
	v := decision.Verdict{Effect: decision.Effect(effect)}
	if !known(v.Effect, decision.EffectAllow, decision.EffectDeny, decision.EffectHold) {
		return v, fmt.Errorf("effect is %q, not allow, deny or hold", effect)
	}
	if v.Reasons, err = list(o, "reasons", reason); err != nil {
		return v, err
	}
	if len(v.Reasons) == 0 {
		return v, errors.New("reasons is empty")
	}
	if v.Obligations, err = list(o, "obligations", obligation); err != nil {
		return v, err
	}
	needed := o["need"] != nil
	if needed != (v.Effect == decision.EffectHold) {
		return v, errors.New("need must be present if effect is hold, and only then")
	}
	if needed {
		v.Need, err = need(o["need"])
	}
	return v, err
}

func reason(t *ast.Term) (decision.Reason, error) {
	o, err := object(t, []string{"rule", "text"}, nil)
	if err != nil {
		return decision.Reason{}, err
	}
	rule, err := o.id("rule")
	if err != nil {
		return decision.Reason{}, err
	}
	sentence, err := o.str("text", maxText)
	return decision.Reason{Rule: rule, Text: sentence}, err
}

func obligation(t *ast.Term) (decision.Obligation, error) {
	o, err := object(t, []string{"name", "value"}, nil)
	if err != nil {
		return decision.Obligation{}, err
	}
	name, err := o.id("name")
	if err != nil {
		return decision.Obligation{}, err
	}
	value, err := o.str("value", maxText)
	return decision.Obligation{Name: name, Value: value}, err
}

func need(t *ast.Term) (*decision.Need, error) {
	o, err := object(t, []string{"kind", "groups", "quorum", "expires_seconds", "exclude"}, nil)
	if err != nil {
		return nil, fmt.Errorf("need: %w", err)
	}
	kind, err := o.str("kind", maxName)
	if err != nil {
		return nil, err
	}
	n := &decision.Need{Kind: decision.ApprovalKind(kind)}
	if !known(n.Kind, decision.FourEyes, decision.Confirm) {
		return nil, fmt.Errorf("kind is %q, not four-eyes or confirm", kind)
	}
	if n.Groups, err = list(o, "groups", name); err != nil {
		return nil, err
	}
	if n.Exclude, err = list(o, "exclude", name); err != nil {
		return nil, err
	}
	if n.Quorum, err = o.whole("quorum", 1, maxQuorum); err != nil {
		return nil, err
	}
	if n.Kind == decision.Confirm && n.Quorum != 1 {
		return nil, errors.New("kind confirm asks one person, so quorum must be 1")
	}
	seconds, err := o.whole("expires_seconds", 0, int(maxExpires/time.Second))
	n.Expires = time.Duration(seconds) * time.Second
	return n, err
}

func name(t *ast.Term) (string, error) { return str(t, maxName) }

// fields are an object's, by name.
type fields map[string]*ast.Term

// object returns the fields of t, which must be the required ones and may be
// the optional ones.
func object(t *ast.Term, required, optional []string) (fields, error) {
	o, ok := t.Value.(ast.Object)
	if !ok {
		return nil, fmt.Errorf("%s where an object should be", ast.ValueName(t.Value))
	}
	found := make(fields, o.Len())
	var unknown []string
	o.Foreach(func(k, v *ast.Term) {
		key, ok := k.Value.(ast.String)
		if !ok || !known(string(key), required...) && !known(string(key), optional...) {
			unknown = append(unknown, k.String())
			return
		}
		found[string(key)] = v
	})
	if len(unknown) > 0 {
		return nil, fmt.Errorf("unknown fields: %s", strings.Join(unknown, ", "))
	}
	for _, key := range required {
		if found[key] == nil {
			return nil, fmt.Errorf("the field %s is missing", key)
		}
	}
	return found, nil
}

// list decodes the array at key.
func list[T any](o fields, key string, element func(*ast.Term) (T, error)) ([]T, error) {
	array, ok := o[key].Value.(*ast.Array)
	if !ok {
		return nil, fmt.Errorf("%s is not a list", key)
	}
	if array.Len() > maxList {
		return nil, fmt.Errorf("%s has more than %d elements", key, maxList)
	}
	var all []T
	for i := range array.Len() {
		x, err := element(array.Elem(i))
		if err != nil {
			return nil, fmt.Errorf("%s, element %d: %w", key, i, err)
		}
		all = append(all, x)
	}
	return all, nil
}

func (o fields) str(key string, limit int) (string, error) {
	s, err := str(o[key], limit)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return s, nil
}

// id decodes a name that programs read: letters, digits and - _ . only.
func (o fields) id(key string) (string, error) {
	s, err := o.str(key, maxName)
	if err != nil {
		return "", err
	}
	bad := func(c rune) bool {
		return c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-_.", c)
	}
	if s == "" || strings.ContainsFunc(s, bad) {
		return "", fmt.Errorf("%s is %q; it must be letters, digits and - _ . only", key, s)
	}
	return s, nil
}

func (o fields) whole(key string, low, high int) (int, error) {
	n, ok := o[key].Value.(ast.Number)
	if !ok {
		return 0, fmt.Errorf("%s is not a number", key)
	}
	i, err := strconv.Atoi(string(n))
	if err != nil || i < low || i > high {
		return 0, fmt.Errorf("%s is %s; it must be a whole number from %d to %d", key, n, low, high)
	}
	return i, nil
}

// str decodes a string that a person will read: bounded, and what could move
// the cursor or hide something is replaced.
func str(t *ast.Term, limit int) (string, error) {
	s, ok := t.Value.(ast.String)
	if !ok {
		return "", fmt.Errorf("%s where a string should be", ast.ValueName(t.Value))
	}
	if len(s) > limit {
		return "", fmt.Errorf("longer than %d bytes", limit)
	}
	return strings.Map(printable, strings.ToValidUTF8(string(s), "\uFFFD")), nil
}

func printable(c rune) rune {
	if unicode.IsPrint(c) {
		return c
	}
	return utf8.RuneError
}
