package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/varvel/varvel/internal/tool"
)

// reader walks the YAML nodes of one file and collects what is wrong. It works
// on nodes instead of structs, because only so each problem has its line, and
// a key that was not given differs from an empty one.
type reader struct {
	file     string
	dir      string // relative paths start here
	problems *Problems
}

// keysAndValues is what messages call a mapping.
const keysAndValues = "keys and values"

// field reads the value of one key.
type field func(key string, n *yaml.Node)

type fields map[string]field

func (r *reader) at(n *yaml.Node) Position { return Position{File: r.file, Line: n.Line} }

func (r *reader) fail(n *yaml.Node, hint, format string, args ...any) {
	r.problems.add(r.at(n), hint, format, args...)
}

// invalid reports err, with its hint if it has one.
func (r *reader) invalid(n *yaml.Node, key string, err error) {
	var value *tool.ValueError
	if errors.As(err, &value) {
		r.fail(n, value.Hint, "`%s`: %s", key, value.Message)
		return
	}
	r.fail(n, "", "`%s`: %v", key, err)
}

// object reads a mapping: each key by its field. It returns the nodes of the
// keys that are there. kind is what the mapping is called in messages.
func (r *reader) object(n *yaml.Node, kind string, known fields) map[string]*yaml.Node {
	found := map[string]*yaml.Node{}
	if n.Kind != yaml.MappingNode {
		r.wrongKind(n, kind, keysAndValues)
		return found
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if first, twice := found[key.Value]; twice {
			r.fail(key, "keep one of them", "key `%s` is repeated in %s; it was first given in line %d", key.Value, kind, first.Line)
			continue
		}
		found[key.Value] = key
		r.entry(kind, known, key, value)
	}
	return found
}

func (r *reader) entry(kind string, known fields, key, value *yaml.Node) {
	read, ok := known[key.Value]
	switch {
	case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
		r.fail(key, "write each setting out", "%s has a key that is not plain text", kind)
	case !ok && later(kind, key.Value) != "":
		r.fail(key, later(kind, key.Value), "`%s` is not available in this version of Varvel", key.Value)
	case !ok:
		r.fail(key, didYouMean(key.Value, slices.Collect(maps.Keys(known))), "unknown key `%s` in %s", key.Value, kind)
	case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null":
		r.fail(key, "give it a value or remove the key", "`%s` has no value", key.Value)
	default:
		read(key.Value, value)
	}
}

// wrongKind reports a node that is not what it should be.
func (r *reader) wrongKind(n *yaml.Node, key, want string) {
	if n.Kind == yaml.AliasNode {
		r.fail(n, "write the value out", "`%s` is a YAML alias; aliases are not supported", key)
		return
	}
	hint := "write " + want
	if want == keysAndValues {
		hint = "write `{ key: value }`, or the keys on lines of their own, indented"
	}
	r.fail(n, hint, "`%s` must be %s, not %s", key, want, describe(n))
}

// describe says what a node is, in words.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return keysAndValues
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the truth value " + n.Value
	case "!!str":
		return "the text " + strconv.Quote(n.Value)
	default:
		return n.ShortTag() + " " + strconv.Quote(n.Value)
	}
}

// list reads a sequence, each item by the given field.
func (r *reader) list(item field) field {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			r.notList(n, key)
			return
		}
		for _, c := range n.Content {
			item(key, c)
		}
	}
}

func (r *reader) notList(n *yaml.Node, key string) {
	if n.Kind != yaml.ScalarNode {
		r.wrongKind(n, key, "a list")
		return
	}
	r.fail(n, fmt.Sprintf("write `%s: [%s]`", key, n.Value), "`%s` must be a list", key)
}

// text reads text. What other types look like must be quoted.
func (r *reader) text(set func(string) error) field {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			r.wrongKind(n, key, "text")
			return
		}
		if n.ShortTag() != "!!str" {
			r.fail(n, fmt.Sprintf("write %q, with the quotes", n.Value), "`%s` must be text, not %s", key, describe(n))
			return
		}
		r.set(key, n, set)
	}
}

// scalar reads anything that is one word, as it is written.
func (r *reader) scalar(want string, set func(string) error) field {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			r.wrongKind(n, key, want)
			return
		}
		r.set(key, n, set)
	}
}

func (r *reader) set(key string, n *yaml.Node, set func(string) error) {
	if err := set(n.Value); err != nil {
		r.invalid(n, key, err)
	}
}

// truth reads true or false.
func (r *reader) truth(to *bool) field {
	return func(key string, n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			r.wrongKind(n, key, "true or false")
			return
		}
		*to = n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
	}
}

// keep returns a setter that stores what parse makes of a text.
func keep[T any](to *T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = v
		}
		return err
	}
}

// maxItems is the most that one list of words may have.
const maxItems = 4096

// collect returns a setter that appends what parse makes of a text. The same
// value twice is an error.
func collect[T comparable](to *[]T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := parse(s)
		if err != nil {
			return err
		}
		if len(*to) == maxItems {
			return problem("shorten the list", "the list has more than %d items", maxItems)
		}
		if slices.Contains(*to, v) {
			return problem("remove one", "%q is listed twice", s)
		}
		*to = append(*to, v)
		return nil
	}
}

// problem is a ValueError with a formatted message.
func problem(hint, format string, args ...any) error {
	return &tool.ValueError{Message: fmt.Sprintf(format, args...), Hint: hint}
}
