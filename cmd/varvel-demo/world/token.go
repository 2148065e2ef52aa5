package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Claims are the parts of a token that the demo looks at.
type Claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Run      string `json:"run"`      // the token's txn
	Lifetime string `json:"lifetime"` // from iat to exp
}

// Verifier checks bearer tokens as any OpenID Connect relying party would: keys
// are found through the issuer's discovery document, nothing is agreed before.
type Verifier struct {
	Issuer   string
	Audience string
	Client   *http.Client
}

// Verify checks a token's signature, issuer, audience and times.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, fmt.Errorf("not an ES256 token: %w", err)
	}
	keys, err := v.keys(ctx)
	if err != nil {
		return Claims{}, err
	}
	var claims jwt.Claims
	var more struct {
		Transaction string `json:"txn"`
	}
	if err := parsed.Claims(keys, &claims, &more); err != nil {
		return Claims{}, fmt.Errorf("signature: %w", err)
	}
	if err := v.judge(claims); err != nil {
		return Claims{}, err
	}
	return Claims{
		Issuer: claims.Issuer, Subject: claims.Subject, Audience: claims.Audience[0], Run: more.Transaction,
		Lifetime: claims.Expiry.Time().Sub(claims.IssuedAt.Time()).String(),
	}, nil
}

func (v *Verifier) judge(c jwt.Claims) error {
	if c.Expiry == nil || c.IssuedAt == nil {
		return errors.New("token without exp or iat")
	}
	if len(c.Audience) != 1 {
		return fmt.Errorf("token for %d audiences, not for one", len(c.Audience))
	}
	return c.ValidateWithLeeway(jwt.Expected{
		Issuer: v.Issuer, AnyAudience: jwt.Audience{v.Audience}, Time: time.Now(),
	}, 5*time.Second)
}

// keys fetches the issuer's public keys (OpenID Connect Discovery 1.0, section 4).
func (v *Verifier) keys(ctx context.Context) (*jose.JSONWebKeySet, error) {
	var discovery struct {
		Issuer  string `json:"issuer"`
		KeysURI string `json:"jwks_uri"`
	}
	if err := v.get(ctx, v.Issuer+"/.well-known/openid-configuration", &discovery); err != nil {
		return nil, err
	}
	if discovery.Issuer != v.Issuer {
		return nil, fmt.Errorf("discovery at %s speaks for %s", v.Issuer, discovery.Issuer)
	}
	keys := new(jose.JSONWebKeySet)
	return keys, v.get(ctx, discovery.KeysURI, keys)
}

func (v *Verifier) get(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := v.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(into)
}
