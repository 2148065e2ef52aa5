package endpoint

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/varvel/varvel/internal/workload"
)

// maxShown is how many refusals one answer holds.
const maxShown = 20

// explained is a refusal with what follows from it.
type explained struct {
	Refusal
	Means string `json:"means"`
	Retry bool   `json:"retry"`
	Help  string `json:"help"`
}

type whyReply struct {
	Run      string      `json:"run"`
	Dest     string      `json:"dest,omitempty"`
	Refusals []explained `json:"refusals"`
}

// why serves GET /v1/why, with or without dest=NAME, NAME:PORT or a URL.
func (e *Endpoint) why(w http.ResponseWriter, r *http.Request, run *workload.Run) {
	dest, ok := onlyParam(r, "dest")
	if !ok || len(dest) > 512 {
		write(w, denial{http.StatusBadRequest, "query", "The query may be dest=NAME, dest=NAME:PORT or a URL, and nothing else.", ""})
		return
	}
	reply := collect(e.opts.Refusals.Recent(run.CgroupID), run.ID, dest)
	if wantsJSON(r) {
		e.reply(w, reply)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte(reply.text())) // the client is gone: nothing to do
}

// collect explains the refusals that concern dest.
func collect(recent []Refusal, run, dest string) whyReply {
	reply := whyReply{Run: run, Dest: dest, Refusals: []explained{}}
	for _, f := range recent {
		if len(reply.Refusals) < maxShown && concerns(f.Target, dest) {
			reply.Refusals = append(reply.Refusals, explain(f))
		}
	}
	return reply
}

// wantsJSON is content negotiation enough for two types: JSON for who names it.
func wantsJSON(r *http.Request) bool {
	for _, v := range r.Header["Accept"] {
		if strings.Contains(strings.ToLower(v), "application/json") {
			return true
		}
	}
	return false
}

// concerns reports whether a refusal of target is about dest. Without a port
// in dest, all ports are meant.
func concerns(target, dest string) bool {
	if dest == "" {
		return true
	}
	host, port := splitDest(dest)
	targetHost, targetPort := splitDest(target)
	return host == targetHost && (port == "" || targetPort == "" || port == targetPort)
}

// splitDest takes a name, an address, either with a port, or a URL apart.
func splitDest(s string) (host, port string) {
	s = strings.ToLower(s)
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		s, _, _ = strings.Cut(rest, "/")
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	if h, p, err := net.SplitHostPort(s); err == nil {
		return strings.TrimSuffix(h, "."), p
	}
	return strings.TrimSuffix(strings.Trim(s, "[]"), "."), port
}

// text is the answer for people. Everything that a workload has sent is
// escaped.
func (r whyReply) text() string {
	if len(r.Refusals) == 0 {
		if r.Dest == "" {
			return "Nothing was refused to this run.\n"
		}
		return fmt.Sprintf("No refusal of %s is remembered for this run. If it fails, the other side or the network is the cause.\n", clean(r.Dest))
	}
	var b strings.Builder
	for i, f := range r.Refusals {
		if i > 0 {
			b.WriteByte('\n')
		}
		f.text(&b)
	}
	return b.String()
}

func (f explained) text(b *strings.Builder) {
	what := "was refused"
	if f.Observed {
		what = "would be refused in enforce mode, and was let through"
	}
	fmt.Fprintf(b, "%s %s at %s", clean(f.Target), what, f.Time.UTC().Format(time.RFC3339))
	if f.Count > 1 {
		fmt.Fprintf(b, " (%d times)", f.Count)
	}
	b.WriteString(".\n")
	if f.Detail != "" {
		fmt.Fprintf(b, "  What:   %s\n", clean(f.Detail))
	}
	fmt.Fprintf(b, "  Why:    %s [%s]\n", clean(f.Means), clean(f.Rule))
	if f.Approval != "" {
		fmt.Fprintf(b, "  Waits:  for approval %s\n", clean(f.Approval))
	}
	fmt.Fprintf(b, "  Retry:  %s\n", map[bool]string{true: "can help", false: "does not help"}[f.Retry])
	fmt.Fprintf(b, "  Helps:  %s\n", clean(f.Help))
}

// clean escapes everything that is not printable ASCII and bounds the rest.
func clean(s string) string {
	quoted := strconv.QuoteToASCII(s[:min(len(s), 512)])
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
