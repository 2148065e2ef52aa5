package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// story: the log tells who did what, who approved it, and is whole.
func (d *demo) story(ctx context.Context, o *outcome) error {
	if d.runs.clone == "" || d.runs.deletion == "" {
		return errors.New("the clone or the deletion has not happened")
	}
	deletion, err := d.events(ctx, d.runs.deletion)
	if err != nil {
		return err
	}
	o.expect(tells(deletion, "approval", "requested"), "the log has the question", deletion)
	o.expect(tells(deletion, "approval", "granted", "root"), "the log has who granted it", deletion)
	o.expect(tells(deletion, "http", "outcome", "204"), "the log has what became of it", deletion)
	for _, e := range deletion {
		if e.Kind == "approval" || e.Kind == "http" {
			o.note("%s", e)
		}
	}
	clone, err := d.events(ctx, d.runs.clone)
	if err != nil {
		return err
	}
	o.expect(tells(clone, "credential", world.Audience), "the log has the clone's token, by whom it is for", clone)
	verified, err := d.varvel("audit", "verify", "--dir", d.plan.File("state", "audit")).run(ctx)
	o.expect(verified.code == 0, "the log verifies", verified)
	return err
}

// event is what the demo reads of an event of `varvel audit`.
type event struct {
	Seq      uint64 `json:"seq"`
	Kind     string `json:"kind"`
	Activity string `json:"activity"`
	Effect   string `json:"effect"`
	HTTP     struct {
		Method string `json:"method"`
		Path   string `json:"path"`
		Status int    `json:"status"`
	} `json:"http"`
	Approval struct {
		By struct {
			Name string `json:"name"`
		} `json:"by"`
		Reason string `json:"reason"`
	} `json:"approval"`
	Credential struct {
		Audience string `json:"audience"`
	} `json:"credential"`
}

// String tells an event in one line.
func (e event) String() string {
	words := []string{fmt.Sprintf("#%d", e.Seq), e.Kind, e.Activity, e.Effect}
	if e.HTTP.Method != "" {
		words = append(words, e.HTTP.Method, e.HTTP.Path)
	}
	if e.HTTP.Status != 0 {
		words = append(words, fmt.Sprintf("→ %d", e.HTTP.Status))
	}
	if e.Approval.By.Name != "" {
		words = append(words, "by", e.Approval.By.Name)
	}
	if e.Approval.Reason != "" {
		words = append(words, fmt.Sprintf("%q", e.Approval.Reason))
	}
	words = append(words, e.Credential.Audience)
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

// tells reports whether one event has all the words.
func tells(events []event, words ...string) bool {
	return slices.ContainsFunc(events, func(e event) bool {
		have := strings.Fields(e.String())
		return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(have, w) })
	})
}

// events returns the events of a run, in order. None of them may hold a token:
// all tokens of the demo begin with the three letters of a JOSE header.
func (d *demo) events(ctx context.Context, run string) ([]event, error) {
	r, err := d.varvel("audit", "--run", run, "--output", "json").run(ctx)
	if err != nil {
		return nil, err
	}
	if r.code != 0 || strings.Contains(r.stdout, "eyJ") {
		return nil, fmt.Errorf("varvel audit fails, or shows a token: %s", r)
	}
	var events []event
	for decoder := json.NewDecoder(strings.NewReader(r.stdout)); ; {
		var e event
		switch err := decoder.Decode(&e); {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("varvel audit: %w: %s", err, r)
		}
		events = append(events, e)
	}
}

// changed: one byte of a copy is changed, and the check names the place.
func (d *demo) changed(ctx context.Context, o *outcome) error {
	copied := d.plan.File("copy")
	if err := os.CopyFS(copied, os.DirFS(d.plan.File("state", "audit"))); err != nil {
		return err
	}
	before, err := d.varvel("audit", "verify", "--dir", copied).run(ctx)
	if err != nil {
		return err
	}
	o.expect(before.code == 0, "the control, an unchanged copy, verifies", before)
	file, offset, err := changeOneByte(copied, d.held.approvalID())
	if err != nil {
		return err
	}
	after, err := d.varvel("audit", "verify", "--dir", copied).run(ctx)
	if err != nil {
		return err
	}
	said := after.stdout + after.stderr
	o.expect(after.code != 0 && strings.Contains(said, filepath.Base(file)), "the change is found, and the file is named", after)
	o.note("byte %d of %s was changed, inside %s", offset, filepath.Base(file), d.held.approvalID())
	o.note("verify: %s", strings.ReplaceAll(strings.TrimPrefix(said, "varvel: "), copied+"/", ""))
	return nil
}

// changeOneByte changes one byte of the file of the log that holds the text,
// in the middle of that text: somebody alters who approved what.
func changeOneByte(dir, text string) (file string, offset int, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return "", 0, err
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", 0, err
		}
		at := bytes.Index(b, []byte(text))
		if text == "" || at < 0 {
			continue
		}
		at += len(text) / 2
		b[at] ^= 1
		return path, at, os.WriteFile(path, b, 0o600)
	}
	return "", 0, errors.New("the log does not hold the approval")
}

func (h *heldDeletion) approvalID() string {
	if h == nil {
		return ""
	}
	return h.approval
}
