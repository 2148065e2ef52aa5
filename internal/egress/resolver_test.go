package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// newTestResolver returns a resolver whose files are empty, and their folder.
func newTestResolver(t *testing.T, upstreams ...string) (*Resolver, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := NewResolver(ResolverOptions{
		Upstreams: upstreams, ResolvConf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"),
		Timeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, dir
}

// fakeAsk answers in the place of name servers.
type fakeAsk struct {
	mu    sync.Mutex
	asked map[string]int // by name and type
	reply func(host string, qtype uint16) (records, error)
}

func (f *fakeAsk) ask(_ context.Context, host string, qtype uint16) (records, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[host+" "+dns.TypeToString[qtype]]++
	return f.reply(host, qtype)
}

func withFakeAsk(r *Resolver, reply func(host string, qtype uint16) (records, error)) *fakeAsk {
	f := &fakeAsk{asked: map[string]int{}, reply: reply}
	r.ask = f.ask
	return f
}

func TestResolveCombines(t *testing.T) {
	v4 := records{addrs("192.0.2.1", "192.0.2.2", "192.0.2.3"), time.Minute}
	v6 := records{addrs("2001:db8::1"), time.Minute}
	for _, tt := range []struct {
		name       string
		v4, v6     records
		err4, err6 error
		want       []netip.Addr
		err        error
	}{
		{"both", v4, v6, nil, nil, addrs("2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"), nil},
		{"IPv4 only", v4, records{}, nil, nil, v4.addrs, nil},
		{"IPv6 only", records{}, v6, nil, nil, v6.addrs, nil},
		{"IPv6 fails", v4, records{}, nil, errFake, v4.addrs, nil},
		{"IPv4 does not exist", records{}, v6, ErrNoSuchName, nil, v6.addrs, nil},
		{"neither", records{}, records{}, nil, nil, nil, ErrNoAddress},
		{"no such name", records{}, records{}, ErrNoSuchName, ErrNoSuchName, nil, ErrNoSuchName},
		{"no such name, by one", records{}, records{}, ErrNoSuchName, errFake, nil, ErrNoSuchName},
		{"failure", records{}, records{}, errFake, errFake, nil, errFake},
		{"half a failure", records{}, records{}, nil, errFake, nil, errFake},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := newTestResolver(t, "192.0.2.53:53")
			withFakeAsk(r, func(_ string, qtype uint16) (records, error) {
				if qtype == dns.TypeA {
					return tt.v4, tt.err4
				}
				return tt.v6, tt.err6
			})
			got, err := r.Resolve(t.Context(), "example.org")
			if diff := cmp.Diff(tt.want, got, compareAddrs); diff != "" || !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v; %s", err, tt.err, diff)
			}
		})
	}
}

func TestResolveRemembers(t *testing.T) {
	for _, tt := range []struct {
		name string
		ttl  time.Duration
		err  error
		keep time.Duration
	}{
		{"as long as the answer holds", 90 * time.Second, nil, 90 * time.Second},
		{"a second at least", 0, nil, time.Second},
		{"five minutes at most", 24 * time.Hour, nil, 5 * time.Minute},
		{"no such name", 0, ErrNoSuchName, shortTTL},
		{"failures for a moment", 0, errFake, failureTTL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := newTestResolver(t, "192.0.2.53:53")
			synctest.Test(t, func(t *testing.T) {
				f := withFakeAsk(r, func(string, uint16) (records, error) {
					if tt.err != nil {
						return records{}, tt.err
					}
					return records{addrs("192.0.2.1"), tt.ttl}, nil
				})
				resolve := func() { _, _ = r.Resolve(t.Context(), "Example.ORG.") }
				resolve()
				if tt.keep > 0 {
					time.Sleep(tt.keep - time.Millisecond)
					resolve()
					if n := f.asked["example.org A"]; n != 1 {
						t.Errorf("asked %d times before %s", n, tt.keep)
					}
				}
				time.Sleep(time.Millisecond)
				resolve()
				if n := f.asked["example.org A"]; n != 2 {
					t.Errorf("asked %d times after %s", n, tt.keep)
				}
			})
		})
	}
}

func TestResolveAsksOnceForAll(t *testing.T) {
	r, _ := newTestResolver(t, "192.0.2.53:53")
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAsk{asked: map[string]int{}, reply: func(string, uint16) (records, error) {
			return records{addrs("192.0.2.1"), time.Minute}, nil
		}}
		r.ask = func(ctx context.Context, host string, qtype uint16) (records, error) {
			time.Sleep(time.Second)
			return f.ask(ctx, host, qtype)
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.Resolve(impatient, "example.org"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the impatient caller got %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			wg.Go(func() {
				if got, err := r.Resolve(t.Context(), "example.org"); err != nil || len(got) == 0 {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff(map[string]int{"example.org A": 1, "example.org AAAA": 1}, f.asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestResolveCacheIsBounded(t *testing.T) {
	r, _ := newTestResolver(t, "192.0.2.53:53")
	for i := range maxCached + 100 {
		r.remember(fmt.Sprint(i), cached{expires: time.Now().Add(time.Hour)})
	}
	if n := len(r.cache); n != maxCached {
		t.Errorf("%d names are kept", n)
	}
	if _, ok := r.cached(fmt.Sprint(maxCached + 99)); !ok {
		t.Error("the newest name is not kept")
	}
}

func TestResolveLocally(t *testing.T) {
	r, dir := newTestResolver(t, "192.0.2.53:53")
	withFakeAsk(r, func(string, uint16) (records, error) { return records{}, errFake })
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(host string, want ...string) {
		t.Helper()
		got, err := r.Resolve(t.Context(), host)
		if diff := cmp.Diff(addrs(want...), got, compareAddrs); diff != "" || (err == nil) != (len(want) > 0) {
			t.Errorf("%s: %v %s", host, err, diff)
		}
	}
	check("db.corp")
	check("localhost", "::1", "127.0.0.1")
	check("192.0.2.8", "192.0.2.8")
	check("::ffff:192.0.2.8", "192.0.2.8")
	check("not a name")
	write("# comment\n192.0.2.1 DB.corp other # more\n\nnonsense db.corp\n2001:db8::1\tdb.corp.\n192.0.2.9\n")
	check("db.corp", "192.0.2.1", "2001:db8::1")
	check("OTHER", "192.0.2.1")
	check("more")
	write("192.0.2.200 db.corp\n")
	check("db.corp", "192.0.2.200")
	if err := os.Remove(filepath.Join(dir, "hosts")); err != nil {
		t.Fatal(err)
	}
	check("db.corp")
}

func TestParseResolvConf(t *testing.T) {
	for content, want := range map[string][]string{
		"": {"127.0.0.1:53"},
		"# x\nsearch a b\nnameserver 192.0.2.1\noptions ndots:5\nnameserver\t2001:db8::1 \n": {"192.0.2.1:53", "[2001:db8::1]:53"},
		"nameserver fe80::1%lo\nnameserver x\n":                                              {"[fe80::1%lo]:53"},
		"nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n":   {"1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"},
		"nameserver": {"127.0.0.1:53"},
	} {
		var got []string
		for _, server := range parseResolvConf([]byte(content)) {
			got = append(got, server.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", content, diff)
		}
	}
}

func TestNewResolverRefuses(t *testing.T) {
	_, err := NewResolver(ResolverOptions{Upstreams: []string{"192.0.2.1"}, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("an upstream without port was accepted")
	}
}

func TestWatchedKeepsTheLastContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	w := newWatched(path, func(b []byte) string { return string(b) }, slog.New(slog.DiscardHandler))
	if got := w.get(); got != "" {
		t.Errorf("no file is %q", got)
	}
	if err := os.WriteFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := w.get(); got != "one" {
		t.Errorf("got %q", got)
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if got := w.get(); got != "one" {
		t.Errorf("what cannot be read is %q", got)
	}
}
