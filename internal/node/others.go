package node

import (
	"fmt"
	"strings"

	"github.com/varvel/varvel/internal/admin/api"
)

// maxOthers bounds how many programs of others the status names.
const maxOthers = 16

// controls lists how runs are confined here, and who else has a say.
func (n *node) controls() []api.Control {
	return append(n.confinement(), n.others()...)
}

// others names the cgroup programs of others. One that changes addresses after
// ours has judged them is worth knowing: what it makes of them has to be listed too.
func (n *node) others() []api.Control {
	const name = "other-programs"
	all, err := n.kernel.Others()
	if err != nil {
		return []api.Control{{Name: name, Detail: err.Error()}}
	}
	if len(all) == 0 {
		return nil
	}
	var texts []string
	for i, o := range all {
		if i == maxOthers {
			texts = append(texts, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		order := map[bool]string{true: "before", false: "after"}[o.Before]
		texts = append(texts, fmt.Sprintf("%s (%d) at %s, %s Varvel's", quoted(o.Name), o.ID, o.Hook, order))
	}
	return []api.Control{{
		Name: name, Active: true,
		Detail: "also asked about what runs do: " + strings.Join(texts, "; ") + ". An address that one of them changes has to be listed in both forms if it is asked after Varvel's",
	}}
}
