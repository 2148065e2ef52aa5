package endpoint

import (
	"net/http"

	"github.com/varvel/varvel/internal/decision"
	"github.com/varvel/varvel/internal/workload"
)

// self is what a run may know about itself. No secret is in it.
type self struct {
	Run   string           `json:"run"`
	Agent string           `json:"agent"`
	Mode  decision.Mode    `json:"mode"`
	Actor string           `json:"actor"` // the machine account
	For   *decision.Person `json:"on_behalf_of,omitempty"`
	Tools []selfTool       `json:"tools"`
}

type selfTool struct {
	Name    string   `json:"name"`
	Client  string   `json:"client"`
	Hosts   []string `json:"hosts"`
	Token   bool     `json:"token"` // whether GET /v1/token may have one
	Actions []string `json:"actions,omitempty"`
}

// whoami serves GET /v1/whoami.
func (e *Endpoint) whoami(w http.ResponseWriter, run *workload.Run) {
	s := self{
		Run: run.ID, Agent: run.Run.Agent, Mode: run.Mode, Actor: run.Actor.Account, For: run.Actor.Person, Tools: []selfTool{},
	}
	for _, t := range run.Tools {
		st := selfTool{Name: t.Name, Client: t.Client, Token: t.Credential != nil, Hosts: []string{}}
		for _, h := range t.Hosts {
			st.Hosts = append(st.Hosts, h.String())
		}
		for _, a := range t.Actions {
			st.Actions = append(st.Actions, a.Name)
		}
		s.Tools = append(s.Tools, st)
	}
	e.reply(w, s)
}
