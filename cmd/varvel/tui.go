package main

// Rules of output
//
//  1. Everything that a person sees goes through this file. Each line is
//     escaped as a whole right before it is written, so no text, wherever it
//     comes from, can move the cursor, change colours, hide or reverse what is
//     shown, or begin a line of its own. No sequence of ours is an exception:
//     the output has no colours.
//  2. Results go to standard output, everything else to standard error.
//  3. Text of a workload that has several lines is shown with a margin, so that
//     it cannot be taken for ours.
//  4. JSON is escaped so that it is safe on a screen and still the same value.
//  5. An error is one sentence, and what to do is on a line of its own.
//  6. A time is shown with its distance from now.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// margin begins each line of a workload's text.
const margin = "    | "

// maxMarks is how many combining marks a character may have. More would grow
// over the lines above and below.
const maxMarks = 2

// safe returns s with everything that is not plainly visible as an escape:
// control characters, format characters (among them those that reverse text),
// invisible and unassigned ones, and bytes that are not UTF-8. The result is
// one line.
func safe(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	marks := 0
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case visible(r) && marks <= maxMarks:
			b.WriteRune(r)
		default:
			escapeRune(&b, r)
		}
		s = s[n:]
	}
	return b.String()
}

func escapeRune(b *strings.Builder, r rune) {
	switch {
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < 0x100:
		fmt.Fprintf(b, `\x%02x`, r)
	default:
		fmt.Fprintf(b, `\u{%x}`, r)
	}
}

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// visible reports whether a character shows as what it is. Characters that
// take room and show nothing, and those that select another look for their
// neighbour, are not.
func visible(r rune) bool {
	switch {
	case !unicode.IsPrint(r):
		return false
	case unicode.Is(unicode.Variation_Selector, r), unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
		return false
	case r == '\u2800': // a Braille pattern without dots
		return false
	}
	return true
}

// safeJSON returns the same JSON with every character that is not plainly
// visible as \uXXXX. In JSON such characters are in strings only.
func safeJSON(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n', r < utf8.RuneSelf && r >= ' ' && r <= '~', r != utf8.RuneError && visible(r) && !unicode.Is(unicode.M, r):
			out = append(out, b[:n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out
}

// tui writes for people.
type tui struct {
	out, err io.Writer
	now      func() time.Time
}

func newTUI(out, err io.Writer, now func() time.Time) *tui { return &tui{out, err, now} }

// line writes one line of the result.
func (t *tui) line(format string, args ...any) {
	fmt.Fprintln(t.out, safe(fmt.Sprintf(format, args...)))
}

// note writes one line that is not part of the result.
func (t *tui) note(format string, args ...any) {
	fmt.Fprintln(t.err, safe(fmt.Sprintf(format, args...)))
}

// ask writes a question, whose answer is typed behind it.
func (t *tui) ask(format string, args ...any) {
	fmt.Fprint(t.err, safe(fmt.Sprintf(format, args...))+" ")
}

// block writes text of a workload, with its line breaks and a margin.
func (t *tui) block(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(t.out, margin+safe(line))
	}
}

// fields writes pairs of name and value, aligned. Empty values are left out.
func (t *tui) fields(pairs ...string) {
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", safe(pairs[i]), safe(pairs[i+1]))
		}
	}
	w.Flush()
}

// table writes rows under a header. Without rows it says so in one sentence.
func (t *tui) table(none string, header []string, rows [][]string) {
	if len(rows) == 0 {
		t.note("%s", none)
		return
	}
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = safe(cell)
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	w.Flush()
}

// json writes v as indented JSON.
func (t *tui) json(v any) error { return t.encode(v, "  ") }

// jsonLine writes v as one line of JSON.
func (t *tui) jsonLine(v any) error { return t.encode(v, "") }

func (t *tui) encode(v any, indent string) error {
	var b []byte
	var err error
	if indent == "" {
		b, err = json.Marshal(v)
	} else {
		b, err = json.MarshalIndent(v, "", indent)
	}
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	_, err = t.out.Write(append(safeJSON(b), '\n'))
	return err
}

// failure writes an error, and the hint on a line of its own.
func (t *tui) failure(err error) {
	for line := range strings.SplitSeq(strings.TrimRight(err.Error(), "\n"), "\n") {
		t.note("varvel: %s", line)
	}
	var h hinted
	if errors.As(err, &h) && h.hint != "" {
		t.note("hint: %s", h.hint)
	}
}

// when returns a time with its distance from now.
func (t *tui) when(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Local().Format("2006-01-02 15:04:05") + " (" + distance(at, t.now()) + ")"
}

// distance says how far a time is from now, in its largest unit.
func distance(at, now time.Time) string {
	d := now.Sub(at)
	form := "%s ago"
	if d < 0 {
		d, form = -d, "in %s"
	}
	switch {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf(form, fmt.Sprintf("%ds", int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf(form, fmt.Sprintf("%dm", int(d.Minutes())))
	case d < 48*time.Hour:
		return fmt.Sprintf(form, fmt.Sprintf("%dh", int(d.Hours())))
	}
	return fmt.Sprintf(form, fmt.Sprintf("%dd", int(d.Hours()/24)))
}
