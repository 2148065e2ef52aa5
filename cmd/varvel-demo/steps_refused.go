package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// otherName: one address, two names, and only one of them is listed. The
// program tries the other by its name, by the address, and by asking for it on
// a connection to the listed name.
func (d *demo) otherName(ctx context.Context, o *outcome) error {
	url, address := "https://"+world.NameOther, d.plan.Shared.V4.String()
	tries := map[string][]string{
		"/by-name":    d.curl(url + "/by-name"),
		"/by-address": d.curl("--resolve", world.NameOther+":443:"+address, url+"/by-address"),
		"/by-sni":     d.curl("--connect-to", world.NameOther+":443:"+world.NameAllowed+":443", url+"/by-sni"),
	}
	evidence := map[string]result{}
	for path, argv := range tries {
		r, err := d.inside(argv...).run(ctx)
		if err != nil {
			return err
		}
		evidence[path] = r
	}
	// The control comes last: what is in the log when it is there was sent before.
	control, err := d.outside(d.curl("--resolve", world.NameOther+":443:"+address, url+"/control")...).run(ctx)
	if err != nil {
		return err
	}
	return d.judgeOtherName(o, evidence, control)
}

func (d *demo) judgeOtherName(o *outcome, evidence map[string]result, control result) error {
	entries, err := d.logs(world.LogShared)
	if err != nil {
		return err
	}
	hellos, requests := 0, []string{}
	for _, e := range entries {
		switch {
		case e.Name != world.NameOther:
		case e.Event == "hello":
			hellos++
		case e.Event == "request":
			requests = append(requests, e.HTTP.Path)
		}
	}
	o.expect(slices.Contains(requests, "/control"), "the control, without Varvel, reached the other name", control)
	for path, r := range evidence {
		o.expect(!slices.Contains(requests, path) && r.code != 0, "nothing arrived "+strings.ReplaceAll(path[1:], "-", " "), r)
	}
	o.expect(hellos == 1, "the server was greeted with the other name by the control only", entries)
	o.note("%s received: %s (the control without Varvel)", world.NameOther, strings.Join(requests, " "))
	return nil
}

// unlistedHost: no byte arrives at a host that is not listed, whatever the
// protocol, the family or the way to write its address.
func (d *demo) unlistedHost(ctx context.Context, o *outcome) error {
	inside, err := d.inside(d.attempts("inside")...).run(ctx)
	if err != nil {
		return err
	}
	control, err := d.outside(d.attempts("control")...).run(ctx)
	if err != nil {
		return err
	}
	ways := firstWords(inside.stdout)
	o.expect(len(ways) == 8, "the program made eight attempts", inside)
	var entries []world.Entry
	err = eventually(ctx, 3*time.Second, func() error {
		if entries, err = d.logs(world.LogUnlisted); err != nil {
			return err
		}
		return errUnless(len(missing(entries, "control", ways)) == 0, "not all controls are in the log yet", nil)
	})
	o.expect(err == nil, "the control, without Varvel, arrived in every way", fmt.Sprint(missing(entries, "control", ways), control))
	arrived := 0
	for _, way := range ways {
		here := len(missing(entries, "inside", []string{way})) == 0
		o.expect(!here, "nothing arrived by "+way, inside)
		if here {
			arrived++
		}
	}
	o.expect(connections(entries) == 3, "the host accepted the control's three connections, and no other", entries)
	o.note("unlisted host: %d of %d attempts arrived; of the control without Varvel, %d", arrived, len(ways), len(ways)-len(missing(entries, "control", ways)))
	return nil
}

// missing returns the ways whose mark is not in the log.
func missing(entries []world.Entry, mark string, ways []string) []string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.Data)
	}
	return slices.DeleteFunc(slices.Clone(ways), func(way string) bool { return strings.Contains(b.String(), mark+"-"+way+";") })
}

func connections(entries []world.Entry) int {
	n := 0
	for _, e := range entries {
		if e.Event == "accept" {
			n++
		}
	}
	return n
}

// unlistedName: a name that is not listed is not asked for either, so that
// nothing leaves in a question.
func (d *demo) unlistedName(ctx context.Context, o *outcome) error {
	inside, err := d.inside(d.lookups("inside")...).run(ctx)
	if err != nil {
		return err
	}
	control, err := d.outside(d.lookups("control")...).run(ctx)
	if err != nil {
		return err
	}
	ways := firstWords(inside.stdout)
	o.expect(len(ways) == 5, "the program asked in five ways", inside)
	entries, err := d.logs(world.LogNames)
	if err != nil {
		return err
	}
	asked := map[string]bool{}
	for _, e := range entries {
		asked[e.Name] = true
	}
	name := func(mark, way string) string { return mark + "-" + way + "." + world.Exfil }
	for _, way := range ways {
		o.expect(!asked[name("inside", way)], "the question "+name("inside", way)+" did not leave", inside)
		// The control's resolver asks the machine's own name server, not the demo's.
		if way != "resolver" {
			o.expect(asked[name("control", way)], "the control, without Varvel, asked for "+name("control", way), control)
		}
	}
	o.note("inside: %s", strings.Join(strings.Split(strings.TrimSpace(inside.stdout), "\n"), "; "))
	return nil
}

// firstWords returns the first word of each line.
func firstWords(text string) []string {
	var words []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 {
			words = append(words, fields[0])
		}
	}
	return words
}

// errUnless returns err if there is one, else an error with the text unless
// the condition holds.
func errUnless(condition bool, text string, err error) error {
	if err == nil && !condition {
		return fmt.Errorf("%s", text)
	}
	return err
}
