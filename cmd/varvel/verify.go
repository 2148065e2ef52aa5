package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/varvel/varvel/internal/audit"
)

// verification is the answer of audit verify as JSON.
type verification struct {
	OK      bool           `json:"ok"`
	Dir     string         `json:"dir"`
	Report  audit.Report   `json:"report"`
	Problem *audit.Problem `json:"problem,omitempty"`
	Error   string         `json:"error,omitempty"`
}

// verify checks the log in dir.
func (e *env) verify(dir string) error {
	report, err := audit.Verify(dir)
	if e.json() {
		return e.verifyJSON(dir, report, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return hint(fmt.Errorf("there is no audit log to verify: %w", err), "name its directory with --dir: `audit` in the state_dir of varvel.yaml")
	}
	if err != nil {
		return fmt.Errorf("the audit log does not verify: %w", err)
	}
	e.tui.line("The audit log is whole: %d events in %d segments, up to number %d.", report.Records, report.Segments, report.LastSeq)
	e.tui.fields("first event", e.tui.when(report.Since), "last event", e.tui.when(report.Until), "last hash", report.LastHash.String())
	if report.Unfinished > 0 {
		e.tui.line("%d bytes of an unfinished event are at the end, as in a log that is being written to.", report.Unfinished)
	}
	return nil
}

func (e *env) verifyJSON(dir string, report audit.Report, err error) error {
	v := verification{OK: err == nil, Dir: dir, Report: report}
	if err != nil {
		v.Error = err.Error()
		errors.As(err, &v.Problem)
	}
	if err := e.tui.json(v); err != nil {
		return err
	}
	if err != nil {
		return &exitError{code: codeOf(err)}
	}
	return nil
}
