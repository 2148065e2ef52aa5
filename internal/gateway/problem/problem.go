// Package problem writes refusals that a program and a person can both read:
// application/problem+json (RFC 9457).
package problem

import (
	"encoding/json"
	"net/http"
)

// ContentType is the media type of a Details (RFC 9457 section 6.1).
const ContentType = "application/problem+json"

// Details says what was refused, why, and what would help. Status, Title and
// Detail are members of RFC 9457; the others are extensions (section 3.2).
type Details struct {
	Type   string `json:"type"` // "about:blank": the title is that of the status, or a urn of ours
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`

	Reason   string   `json:"reason,omitempty"` // the rule that spoke
	Tool     string   `json:"tool,omitempty"`
	Actions  []string `json:"available_actions,omitempty"`
	Decision string   `json:"decision,omitempty"`
	Approval string   `json:"approval,omitempty"`
	Expires  string   `json:"expires,omitempty"` // RFC 3339; of the approval
	Retry    bool     `json:"retry"`             // whether the same request can succeed later
	Help     string   `json:"help,omitempty"`    // what to do
}

// TypeFor returns the type URI of a reason.
func TypeFor(reason string) string { return "urn:varvel:problem:" + reason }

// Write answers with d. The reply is never cached.
func Write(w http.ResponseWriter, d Details) {
	if d.Type == "" {
		d.Type = "about:blank"
	}
	if d.Title == "" {
		d.Title = http.StatusText(d.Status)
	}
	body, err := json.Marshal(d)
	if err != nil { // strings and booleans always marshal
		http.Error(w, d.Title, d.Status)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(d.Status)
	_, _ = w.Write(append(body, '\n')) // the client is gone: nothing to do
}
