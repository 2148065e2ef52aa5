package audit

import "fmt"

// Problem is the first bad place of a log.
type Problem struct {
	File     string `json:"file"`
	Offset   int64  `json:"offset"`        // bytes from the beginning of the file
	Seq      uint64 `json:"seq,omitempty"` // of the record that should be there
	What     string `json:"what"`
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
}

// Error says everything in one sentence.
func (p *Problem) Error() string {
	s := fmt.Sprintf("%s, byte %d", p.File, p.Offset)
	if p.Seq > 0 {
		s += fmt.Sprintf(", record %d", p.Seq)
	}
	s += ": " + p.What
	if p.Expected != "" || p.Found != "" {
		s += fmt.Sprintf(" (expected %s, found %s)", p.Expected, p.Found)
	}
	return s
}
