package identity

import "testing"

func TestAccount(t *testing.T) {
	for _, tt := range []struct{ domain, agent, want string }{
		{"example.org", "billing-bot", "spiffe://example.org/agent/billing-bot"},
		{"td", "A_1.x", "spiffe://td/agent/A_1.x"},
		{"", "bot", ""},
		{"example.org", "", ""},
		{"Example.org", "bot", ""},
		{"example.org/x", "bot", ""},
		{"example.org", "a/b", ""},
		{"example.org", "..", ""},
		{"example.org", "bot?x", ""},
		{"example.org", "böt", ""},
	} {
		got, err := Account(tt.domain, tt.agent)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("Account(%q, %q) = %q, %v; want %q", tt.domain, tt.agent, got, err, tt.want)
		}
	}
}

func TestActorNamesTheLocalUser(t *testing.T) {
	a, err := Actor("example.org", "bot", 0)
	if err != nil {
		t.Fatal(err)
	}
	if a.Person != nil || a.StartedBy == nil || a.StartedBy.UID != 0 || a.StartedBy.Name != "root" {
		t.Errorf("got %+v %+v", a, a.StartedBy)
	}
	if a, _ := Actor("example.org", "bot", 4294967000); a.StartedBy.Name != "" {
		t.Errorf("a user without a name got the name %q", a.StartedBy.Name)
	}
}
