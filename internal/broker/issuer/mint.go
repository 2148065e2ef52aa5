package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/varvel/varvel/internal/broker"
)

// claims of an autonomous run's token: the subject is the machine account, and
// there is no actor claim (RFC 8693 section 4.1), because nobody acts on
// anybody's behalf.
type claims struct {
	Issuer    string           `json:"iss"`
	Subject   string           `json:"sub"`
	Audience  string           `json:"aud"` // one string (RFC 7519 section 4.1.3)
	IssuedAt  *jwt.NumericDate `json:"iat"`
	NotBefore *jwt.NumericDate `json:"nbf"`
	Expiry    *jwt.NumericDate `json:"exp"`
	ID        string           `json:"jti"`
	Txn       string           `json:"txn"` // the run
	Varvel    runClaims        `json:"varvel"`
}

type runClaims struct {
	Run   string `json:"run"`
	Agent string `json:"agent"`
	Node  string `json:"node"`
	Boot  string `json:"boot"`
	Tool  string `json:"tool"`
}

// Mint implements broker.Minter. The token lives for the shorter of r.Lifetime
// and the issuer's own limit, in whole seconds.
func (i *Issuer) Mint(ctx context.Context, r broker.MintRequest) (broker.Secret, time.Time, error) {
	if err := errors.Join(ctx.Err(), check(r)); err != nil {
		return broker.Secret{}, time.Time{}, err
	}
	now := i.opts.Now().Truncate(time.Second)
	expires := now.Add(min(r.Lifetime, i.opts.TokenLifetime).Truncate(time.Second))
	token, err := i.sign(claims{
		Issuer: i.opts.URL, Subject: r.Actor.Account, Audience: r.Audience,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
		ID: rand.Text(), Txn: r.Run.ID,
		Varvel: runClaims{Run: r.Run.ID, Agent: r.Run.Agent, Node: r.Run.Node, Boot: r.Run.Boot, Tool: r.Tool},
	}, i.current(now))
	if err != nil {
		return broker.Secret{}, time.Time{}, err
	}
	return broker.NewSecret(token), expires, nil
}

// check refuses requests that this profile of token cannot express.
func check(r broker.MintRequest) error {
	switch {
	case r.Actor.Person != nil:
		return errors.New("the embedded issuer cannot act on behalf of a person")
	case r.Actor.Account == "" || r.Run.ID == "" || r.Tool == "":
		return errors.New("the token would not say whose it is: account, run or tool is empty")
	case r.Audience == "":
		return fmt.Errorf("tool %q has no audience; set credential.issuer.audience", r.Tool)
	case r.Lifetime < 2*time.Second:
		return fmt.Errorf("token lifetime %s is too short; it must be at least 2s", r.Lifetime)
	}
	return nil
}

func (i *Issuer) sign(c claims, k key) (string, error) {
	opts := (&jose.SignerOptions{}).WithType("JWT")
	signingKey := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}
	signer, err := jose.NewSigner(signingKey, opts)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
