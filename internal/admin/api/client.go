package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/varvel/varvel/internal/approval"
)

// ErrUnreachable is returned, wrapped, when there is no daemon to talk to.
var ErrUnreachable = errors.New("the daemon cannot be reached")

// maxAnswer bounds one answer that is not a stream, in bytes.
const maxAnswer = 64 << 20

// Client speaks to the admin API over its unix socket. It is safe for
// concurrent use.
type Client struct {
	http   *http.Client
	socket string
}

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{
		http:   &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}},
		socket: path,
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the state of the node.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, "/v1/status", nil)
}

// Runs returns the live runs.
func (c *Client) Runs(ctx context.Context) ([]Run, error) {
	return get[[]Run](ctx, c, "/v1/runs", nil)
}

// Run returns one live run.
func (c *Client) Run(ctx context.Context, id string) (Run, error) {
	return get[Run](ctx, c, "/v1/runs/"+url.PathEscape(id), nil)
}

// Agents returns the configured agents.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return get[[]Agent](ctx, c, "/v1/agents", nil)
}

// Tools returns the configured tools.
func (c *Client) Tools(ctx context.Context) ([]Tool, error) {
	return get[[]Tool](ctx, c, "/v1/tools", nil)
}

// Leases returns the tokens that are cached.
func (c *Client) Leases(ctx context.Context) ([]Lease, error) {
	return get[[]Lease](ctx, c, "/v1/leases", nil)
}

// Approvals returns approvals, newest first; empty filters select all.
func (c *Client) Approvals(ctx context.Context, run, state string) ([]approval.Approval, error) {
	return get[[]approval.Approval](ctx, c, "/v1/approvals", query("run", run, "state", state))
}

// Approval returns one approval.
func (c *Client) Approval(ctx context.Context, id string) (approval.Approval, error) {
	return get[approval.Approval](ctx, c, "/v1/approvals/"+url.PathEscape(id), nil)
}

// Approve votes for an approval and returns it as it is then.
func (c *Client) Approve(ctx context.Context, id string, v Vote) (approval.Approval, error) {
	return post[approval.Approval](ctx, c, "/v1/approvals/"+url.PathEscape(id)+"/approve", v)
}

// Deny votes against an approval and returns it as it is then.
func (c *Client) Deny(ctx context.Context, id string, v Vote) (approval.Approval, error) {
	return post[approval.Approval](ctx, c, "/v1/approvals/"+url.PathEscape(id)+"/deny", v)
}

// Why explains what becomes of a run's connections to dest.
func (c *Client) Why(ctx context.Context, run, dest string) (Why, error) {
	return get[Why](ctx, c, "/v1/why", query("run", run, "dest", dest))
}

// WhyFrom explains whether a peer may come to a port of a run, over "tcp" or "udp".
func (c *Client) WhyFrom(ctx context.Context, run, port, from, protocol string) (Why, error) {
	return get[Why](ctx, c, "/v1/why", query("run", run, "dest", port, "from", from, "protocol", protocol))
}

// Revoke takes from a run all that it may reach.
func (c *Client) Revoke(ctx context.Context, run string, r Revoke) (Revoked, error) {
	return post[Revoked](ctx, c, "/v1/runs/"+url.PathEscape(run)+"/revoke", r)
}

// Reload makes the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (Reload, error) {
	return post[Reload](ctx, c, "/v1/reload", struct{}{})
}

// query returns the pairs whose value is not empty.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	return call[T](ctx, c, http.MethodGet, path, q, nil)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	b, err := json.Marshal(body)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("encode the request: %w", err)
	}
	return call[T](ctx, c, http.MethodPost, path, nil, b)
}

func call[T any](ctx context.Context, c *Client, method, path string, q url.Values, body []byte) (T, error) {
	var out T
	resp, err := c.send(ctx, method, path, q, body)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("read the daemon's answer: %w", err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("the daemon's answer is not what this program expects (is it another version?): %w", err)
	}
	return out, nil
}

// send returns the response if it is a success, else the problem that it holds.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	target := "http://varvel" + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	return resp, nil
}

// explain tells a daemon that is not there from other failures.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.socket, op.Err)
	}
	return fmt.Errorf("%w at %s: it ended the conversation (%w)", ErrUnreachable, c.socket, errors.Unwrap(err))
}

func problemOf(resp *http.Response) error {
	p := &Problem{Status: resp.StatusCode}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || kind != ContentTypeProblem {
		return p
	}
	if err := json.Unmarshal(b, p); err != nil {
		return &Problem{Status: resp.StatusCode}
	}
	return p
}
