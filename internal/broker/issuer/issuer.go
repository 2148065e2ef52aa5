// Package issuer is the token issuer that comes with Varvel. It signs short
// ES256 JWTs and serves what a relying party needs to check them: OpenID
// Connect discovery and the public keys.
//
// A key is published before it signs: the next key is in the JWKS for at least
// one JWKS cache period before its first signature, and an old key stays there
// until the last token that it signed is dead. So a relying party that caches
// the JWKS as its Cache-Control says never meets an unknown key.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"time"
)

const (
	// MaxTokenLifetime is the longest life of a token.
	MaxTokenLifetime = 5 * time.Minute
	// skew is how far clocks of relying parties may be off.
	skew = time.Minute
)

// Options configure an Issuer. Zero durations mean the defaults.
type Options struct {
	URL           string        // the issuer, "iss"; https, or http on loopback
	Dir           string        // where the keys are kept; made if missing
	KeyLifetime   time.Duration // how long a key signs; default 24 h
	TokenLifetime time.Duration // longest life of a token; default and limit 5 min
	CachePeriod   time.Duration // how long the JWKS may be cached; default 5 min
	Now           func() time.Time
	Log           *slog.Logger
}

// Issuer signs tokens and publishes keys. It is safe for concurrent use.
type Issuer struct {
	opts  Options
	store *store

	mu   sync.RWMutex // guards keys
	keys []key        // by time of activation, oldest first
}

// New opens the keys in opts.Dir, and makes the first ones if there are none.
// Returns an error if the directory or a key in it is somebody else's, or open
// to others.
func New(opts Options) (*Issuer, error) {
	opts, err := withDefaults(opts)
	if err != nil {
		return nil, err
	}
	store, err := openStore(opts.Dir, os.Geteuid())
	if err != nil {
		return nil, err
	}
	if err := store.sweep(); err != nil {
		return nil, fmt.Errorf("clean the directory of the signing keys: %w", err)
	}
	keys, err := store.load()
	if err != nil {
		return nil, err
	}
	i := &Issuer{opts: opts, store: store, keys: keys}
	return i, i.Rotate()
}

func withDefaults(o Options) (Options, error) {
	defaultTo(&o.KeyLifetime, 24*time.Hour)
	defaultTo(&o.TokenLifetime, MaxTokenLifetime)
	defaultTo(&o.CachePeriod, 5*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.TokenLifetime < time.Second || o.TokenLifetime > MaxTokenLifetime:
		return o, fmt.Errorf("token lifetime %s is not between 1s and %s", o.TokenLifetime, MaxTokenLifetime)
	case o.CachePeriod < time.Second:
		return o, fmt.Errorf("JWKS cache period %s is shorter than 1s", o.CachePeriod)
	case o.KeyLifetime < 2*(o.CachePeriod+skew):
		return o, fmt.Errorf("key lifetime %s is too short for relying parties that cache the JWKS; make it at least %s", o.KeyLifetime, 2*(o.CachePeriod+skew))
	}
	return o, checkURL(o.URL)
}

func defaultTo(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// checkURL holds the issuer to OpenID Connect Discovery 1.0 section 3: a URL
// without query and fragment. It must compare equal everywhere, so it has no
// slash at its end.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return fmt.Errorf("issuer %q is not an http or https URL", s)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || u.User != nil:
		return fmt.Errorf("issuer %q has a query, a fragment or a user; remove it", s)
	case s[len(s)-1] == '/':
		return fmt.Errorf("issuer %q ends with a slash; remove it", s)
	}
	return nil
}

// Run rotates keys until ctx ends. A rotation that fails is logged and tried
// again; the current key signs meanwhile.
func (i *Issuer) Run(ctx context.Context) error {
	ticker := time.NewTicker(min(i.opts.CachePeriod/2, time.Minute))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if err := i.Rotate(); err != nil {
				i.opts.Log.Error("signing keys not rotated; the current key is used on", "error", err)
			}
		}
	}
}

// Rotate makes the next key if the one that waits has begun to sign, and
// removes keys whose tokens are dead. It does nothing if neither is so.
func (i *Issuer) Rotate() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.opts.Now()
	return errors.Join(i.addKeys(now), i.dropKeys(now))
}

// addKeys keeps one key waiting. It is the caller who holds i.mu.
func (i *Issuer) addKeys(now time.Time) error {
	for len(i.keys) == 0 || !i.keys[len(i.keys)-1].active.After(now) {
		k, err := newKey(now, i.nextActive(now))
		if err != nil {
			return err
		}
		if err := i.store.save(k); err != nil {
			return err
		}
		i.keys = append(i.keys, k)
		i.opts.Log.Info("signing key made", "kid", k.id, "active", k.active)
	}
	return nil
}

// nextActive is when a key that is made now begins to sign: the very first at
// once, since no relying party has cached anything; each other one when its
// predecessor's life ends, and no earlier than one cache period from now.
func (i *Issuer) nextActive(now time.Time) time.Time {
	if len(i.keys) == 0 {
		return now
	}
	next := i.keys[len(i.keys)-1].active.Add(i.opts.KeyLifetime)
	if earliest := now.Add(i.opts.CachePeriod + skew); next.Before(earliest) {
		return earliest
	}
	return next
}

// dropKeys removes the oldest keys while the last token of each is dead: its
// successor signs for longer than a token lives, and clocks are off by less
// than the skew.
func (i *Issuer) dropKeys(now time.Time) error {
	for len(i.keys) > 1 && now.After(i.keys[1].active.Add(MaxTokenLifetime+2*skew)) {
		if err := i.store.remove(i.keys[0]); err != nil {
			return err
		}
		i.opts.Log.Info("signing key removed", "kid", i.keys[0].id)
		i.keys = i.keys[1:]
	}
	return nil
}

// current is the key that signs now: the latest active one. If the clock was
// set back before all of them, it is the oldest, which is published longest.
func (i *Issuer) current(now time.Time) key {
	i.mu.RLock()
	defer i.mu.RUnlock()
	for n := len(i.keys) - 1; n > 0; n-- {
		if !i.keys[n].active.After(now) {
			return i.keys[n]
		}
	}
	return i.keys[0]
}
