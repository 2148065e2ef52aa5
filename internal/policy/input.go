package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/varvel/varvel/internal/decision"
)

// encode makes the policy's input of r. Its form is policy/input.schema.json;
// a request that does not fit is an error.
func encode(r decision.Request) (ast.Value, error) {
	if err := check(r); err != nil {
		return nil, err
	}
	input := ast.NewObjectWithCapacity(13)
	put(input, "kind", text(string(r.Kind)))
	put(input, "run", run(r.Run))
	put(input, "actor", actor(r.Actor))
	put(input, "tool", text(r.Tool))
	put(input, "action", text(r.Action))
	put(input, "risk", text(string(r.Risk)))
	put(input, "target", target(r.Target))
	put(input, "threshold", fraction(r.Threshold))
	put(input, "approval_kind", text(string(r.ApprovalKind)))
	put(input, "time", text(r.Time.UTC().Format(time.RFC3339Nano)))
	if r.HTTP != nil {
		put(input, "http", http(*r.HTTP))
	}
	if r.Credential != nil {
		put(input, "credential", credential(*r.Credential))
	}
	if r.Confidence != nil {
		put(input, "confidence", confidence(*r.Confidence))
	}
	return input, nil
}

// check refuses what the schema does not permit.
func check(r decision.Request) error {
	switch {
	case r.Kind != decision.KindConnect && r.Kind != decision.KindHTTP && r.Kind != decision.KindCredential:
		return fmt.Errorf("the kind %q is unknown", r.Kind)
	case r.Kind == decision.KindHTTP && r.HTTP == nil, r.Kind == decision.KindCredential && r.Credential == nil:
		return fmt.Errorf("a request of kind %s lacks its own fields", r.Kind)
	case r.Kind != decision.KindHTTP && r.HTTP != nil, r.Kind != decision.KindCredential && r.Credential != nil:
		return fmt.Errorf("a request of kind %s has fields of another kind", r.Kind)
	case r.Run.ID == "" || r.Run.Agent == "" || r.Actor.Account == "":
		return errors.New("the run, its agent or its account is missing")
	case r.Run.Mode != decision.ModeEnforce && r.Run.Mode != decision.ModeObserve:
		return fmt.Errorf("the mode %q is unknown", r.Run.Mode)
	case !known(r.Risk, decision.RiskUnknown, decision.RiskRead, decision.RiskWrite, decision.RiskIrreversible):
		return fmt.Errorf("the risk %q is unknown", r.Risk)
	case !known(r.ApprovalKind, "", decision.FourEyes, decision.Confirm):
		return fmt.Errorf("the approval kind %q is unknown", r.ApprovalKind)
	case !known(r.Target.Protocol, "", "tcp", "udp", "any"):
		return fmt.Errorf("the protocol %q is unknown", r.Target.Protocol)
	case !unit(r.Threshold):
		return errors.New("the threshold is not from 0 to 1")
	case r.Time.IsZero():
		return errors.New("the time is missing")
	}
	return checkParts(r)
}

func checkParts(r decision.Request) error {
	if h := r.HTTP; h != nil && (h.Method == "" || h.Authority == "" || h.Path == "" || h.BodySize < -1) {
		return errors.New("the method, authority or path is missing, or the body's size is wrong")
	}
	if c := r.Credential; c != nil && c.Lifetime < 0 {
		return errors.New("the credential's lifetime is negative")
	}
	if p := r.Actor.Person; p != nil && (p.Issuer == "" || p.Subject == "") {
		return errors.New("the person lacks issuer or subject")
	}
	if c := r.Confidence; c != nil {
		if !unit(c.Value) {
			return errors.New("the confidence is not from 0 to 1")
		}
		if !known(c.Source, "agent", "history", "operator") {
			return fmt.Errorf("the confidence's source %q is unknown", c.Source)
		}
	}
	return nil
}

func known[T comparable](x T, values ...T) bool {
	for _, v := range values {
		if x == v {
			return true
		}
	}
	return false
}

// unit reports whether x is a number from 0 to 1; NaN is not.
func unit(x float64) bool { return x >= 0 && x <= 1 }

func run(r decision.Run) *ast.Term {
	o := ast.NewObjectWithCapacity(6)
	put(o, "id", text(r.ID))
	put(o, "agent", text(r.Agent))
	put(o, "owner", text(r.Owner))
	put(o, "node", text(r.Node))
	put(o, "boot", text(r.Boot))
	put(o, "mode", text(string(r.Mode)))
	return ast.NewTerm(o)
}

func actor(a decision.Actor) *ast.Term {
	o := ast.NewObjectWithCapacity(3)
	put(o, "account", text(a.Account))
	if p := a.Person; p != nil {
		person := ast.NewObjectWithCapacity(2)
		put(person, "iss", text(p.Issuer))
		put(person, "sub", text(p.Subject))
		put(o, "person", ast.NewTerm(person))
	}
	if u := a.StartedBy; u != nil {
		user := ast.NewObjectWithCapacity(2)
		put(user, "uid", whole(int64(u.UID)))
		put(user, "name", text(u.Name))
		put(o, "started_by", ast.NewTerm(user))
	}
	return ast.NewTerm(o)
}

func target(t decision.Target) *ast.Term {
	address := ""
	if t.Address.IsValid() {
		address = t.Address.String()
	}
	o := ast.NewObjectWithCapacity(4)
	put(o, "name", text(t.Name))
	put(o, "address", text(address))
	put(o, "port", whole(int64(t.Port)))
	put(o, "protocol", text(t.Protocol))
	return ast.NewTerm(o)
}

func http(h decision.HTTP) *ast.Term {
	o := ast.NewObjectWithCapacity(5)
	put(o, "method", text(h.Method))
	put(o, "authority", text(h.Authority))
	put(o, "path", text(h.Path))
	put(o, "query", text(h.Query))
	put(o, "body_size", whole(h.BodySize))
	return ast.NewTerm(o)
}

func credential(c decision.Credential) *ast.Term {
	o := ast.NewObjectWithCapacity(2)
	put(o, "audience", text(c.Audience))
	put(o, "lifetime_seconds", fraction(c.Lifetime.Seconds()))
	return ast.NewTerm(o)
}

func confidence(c decision.Confidence) *ast.Term {
	o := ast.NewObjectWithCapacity(2)
	put(o, "value", fraction(c.Value))
	put(o, "source", text(c.Source))
	return ast.NewTerm(o)
}

func put(o ast.Object, key string, value *ast.Term) { o.Insert(ast.InternedTerm(key), value) }

func text(s string) *ast.Term { return ast.InternedTerm(s) }

func whole(n int64) *ast.Term {
	if n >= math.MinInt32 && n <= math.MaxInt32 {
		return ast.InternedTerm(int(n))
	}
	return ast.NumberTerm(json.Number(strconv.FormatInt(n, 10)))
}

func fraction(x float64) *ast.Term {
	if x == math.Trunc(x) && math.Abs(x) <= math.MaxInt32 {
		return ast.InternedTerm(int(x))
	}
	return ast.NumberTerm(json.Number(strconv.FormatFloat(x, 'g', -1, 64)))
}
