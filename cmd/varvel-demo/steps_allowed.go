package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/varvel/varvel/cmd/varvel-demo/world"
)

// allowedQuery: what is listed works, and the server sees it come from the node.
func (d *demo) allowedQuery(ctx context.Context, o *outcome) error {
	const text = `sum by (region) (last_over_time(orders_total[2h]))`
	r, err := d.inside("curl", "-fsSG", "-m", "20", "http://"+world.NamePrometheus+":9090/api/v1/query", "--data-urlencode", "query="+text).run(ctx)
	if err != nil {
		return err
	}
	var seen []query
	err = eventually(ctx, 3*time.Second, func() error {
		var err error
		seen, err = d.prom.queries(text)
		return errUnless(len(seen) > 0, "not in the query log yet", err)
	})
	o.expect(err == nil && len(seen) == 1 && seen[0].Request.ClientIP == d.plan.Node.V4.String(),
		"Prometheus' query log has the query once, from the node", r)
	o.expect(strings.Contains(r.stdout, `"region":"eu"`), "curl received the answer", r)
	if len(seen) > 0 {
		o.note("Prometheus: %s %s from %s", seen[0].Request.Method, seen[0].Request.Path, seen[0].Request.ClientIP)
	}
	return nil
}

// allowedName: TLS to a listed name passes through, for curl and for Node.js,
// end to end with the server's own certificate.
func (d *demo) allowedName(ctx context.Context, o *outcome) error {
	base := "https://" + world.NameAllowed
	for path, argv := range map[string][]string{
		"/by-curl": d.curl("-f", base+"/by-curl"),
		"/by-node": {"node", "-e", fetchScript, base + "/by-node"},
	} {
		r, err := d.inside(argv...).run(ctx)
		if err != nil {
			return err
		}
		got, err := d.requests(world.LogShared, world.NameAllowed, path)
		if err != nil {
			return err
		}
		o.expect(len(got) == 1 && got[0].HTTP.Status == 200, "the server answered one request for "+path, r)
		if len(got) == 1 {
			o.note("%s: %s %s", world.NameAllowed, got[0].HTTP.Method, got[0].HTTP.Path)
		}
	}
	return nil
}

// requests returns the requests in a server's log for a name and a path.
func (d *demo) requests(log, name, path string) ([]world.Entry, error) {
	entries, err := d.logs(log)
	if err != nil {
		return nil, err
	}
	var found []world.Entry
	for _, e := range entries {
		if e.Event == "request" && e.Name == name && strings.HasPrefix(e.HTTP.Path, path) {
			found = append(found, e)
		}
	}
	return found, nil
}

// clone: the git server demands a token. The gateway puts it on the request;
// the program sends none and has none.
func (d *demo) clone(ctx context.Context, o *outcome) error {
	to := d.plan.File("home", "falcon")
	// Plain HTTP to the port of the tool: the gateway speaks TLS to the server.
	git := d.inside("git", "clone", "-q", "http://"+world.NameGit+"/"+repository, to)
	git.env = append(git.env, "GIT_TRACE_CURL=1", "GIT_TERMINAL_PROMPT=0")
	r, err := git.run(ctx)
	if err != nil {
		return err
	}
	head, _ := os.ReadFile(to + "/.git/refs/heads/main")
	o.expect(strings.TrimSpace(string(head)) == d.commit, "the clone has the server's commit", r)
	o.expect(strings.Contains(r.stderr, "GET /"+repository) && !strings.Contains(strings.ToLower(r.stderr), "authorization"),
		"git's own trace shows requests without an Authorization header", r)
	got, err := d.requests(world.LogGit, world.NameGit, "/"+repository)
	if err != nil {
		return err
	}
	o.expect(len(got) >= 2, "the git server answered at least two requests", got)
	for _, e := range got {
		o.expect(e.Claims != nil && e.HTTP.Status == 200, "a request came with a valid token", e.HTTP)
	}
	d.judgeClaims(o, got)
	return d.cloneControl(ctx, o)
}

// judgeClaims looks at the token as the git server verified it.
func (d *demo) judgeClaims(o *outcome, got []world.Entry) {
	for _, e := range got {
		if e.Claims == nil {
			continue
		}
		c := *e.Claims
		o.expect(c.Subject == "spiffe://"+world.Domain+"/agent/demo" && c.Audience == world.Audience && strings.HasPrefix(c.Run, "run_"),
			"the token is the agent's, for this server, from this run", c)
		d.runs.clone = c.Run
	}
	if d.runs.clone != "" {
		c := got[len(got)-1].Claims
		o.note("git server: valid token of %s, for %s, run %s, life %s", c.Subject, c.Audience, c.Run, c.Lifetime)
	}
}

// cloneControl: the same clone outside a run has no token, and is refused.
func (d *demo) cloneControl(ctx context.Context, o *outcome) error {
	git := d.outside("git", "-c", "http.curloptResolve="+world.NameGit+":443:"+d.plan.Git.V4.String(),
		"-c", "http.sslCAInfo="+d.plan.File("ca.pem"), "clone", "-q", "https://"+world.NameGit+"/"+repository, d.plan.File("home", "control"))
	git.env = append(git.env, "GIT_TERMINAL_PROMPT=0")
	r, err := git.run(ctx)
	if err != nil {
		return err
	}
	got, err := d.requests(world.LogGit, world.NameGit, "/"+repository)
	if err != nil {
		return err
	}
	o.expect(len(got) > 0 && got[len(got)-1].HTTP.Status == 401, "the control, without Varvel, was refused by the git server", r)
	return nil
}

// secrets: the program tells a server its whole environment, and the secrets of
// who started it are not there.
func (d *demo) secrets(ctx context.Context, o *outcome) error {
	const tell = `{ env; tr '\0' '\n' </proc/1/environ; tr '\0' '\n' </proc/$PPID/environ; } 2>/dev/null | ` +
		`curl -sS -m 20 --cacert "$NODE_EXTRA_CA_CERTS" --data-binary @- https://` + world.NameAllowed + `/environment`
	r, err := d.inside("sh", "-c", tell).run(ctx)
	if err != nil {
		return err
	}
	got, err := d.requests(world.LogShared, world.NameAllowed, "/environment")
	if err != nil {
		return err
	}
	o.expect(len(got) == 1 && strings.Contains(got[0].Data, "PATH="), "the program's environment reached the server", r)
	for _, e := range got {
		o.expect(!strings.Contains(e.Data, d.canary) && !strings.Contains(e.Data, "AWS_SECRET"), "the caller's secret is not in it", e.Data)
		o.expect(!strings.Contains(e.Data, "eyJ"), "neither is a token", e.Data)
		o.note("received: %s", strings.Join(names(e.Data), " "))
	}
	return d.secretsControl(ctx, o)
}

// secretsControl: without Varvel the same program sees the secret.
func (d *demo) secretsControl(ctx context.Context, o *outcome) error {
	r, err := d.outside("env").run(ctx)
	o.expect(strings.Contains(r.stdout, d.canary), "the control, without Varvel, has the secret", r)
	return err
}

// names returns the names of the variables in an environment, once each.
func names(environment string) []string {
	var list []string
	seen := map[string]bool{}
	for line := range strings.Lines(environment) {
		name, _, ok := strings.Cut(line, "=")
		if ok && !seen[name] {
			seen[name] = true
			list = append(list, name)
		}
	}
	return list
}
