package admission

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/trust"
)

// maxVerified bounds what is remembered of bundles that were verified.
const maxVerified = 10_000

// look is one bundle as one trust root sees it.
type look struct {
	bundle, about, root digest.Digest
	versions            int
}

// outcome is what was found out. It stays so: bundle and trust root are named by their
// content, and whether the trust root is still fresh is looked at each time.
type outcome struct {
	verified trust.Verified
	err      error
}

// verify judges one bundle, whatever kind of statement it is.
func (a *Admission) verify(chain *trust.Chain, bundle, about digest.Digest, now time.Time) (trust.Verified, error) {
	key := look{bundle, about, chain.ID(), chain.Versions()}
	a.mu.Lock()
	known, ok := a.verified[key]
	a.mu.Unlock()
	if ok {
		return known.verified, known.err
	}
	text, err := a.Bundle(bundle)
	if err != nil {
		return trust.Verified{}, err // it may be readable another time
	}
	v, err := judge(chain, text, about, now)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= maxVerified {
		clear(a.verified)
	}
	a.verified[key] = outcome{v, err}
	return v, err
}

func judge(chain *trust.Chain, text []byte, about digest.Digest, now time.Time) (trust.Verified, error) {
	b, err := trust.ParseBundle(text)
	if err != nil {
		return trust.Verified{}, err
	}
	s, err := trust.ParseStatement(b.Payload)
	if err != nil {
		return trust.Verified{}, err
	}
	kind, ok := trust.KindOf(s.PredicateType)
	if !ok {
		return trust.Verified{}, &trust.Refusal{Verdict: trust.WrongPredicate, What: "nobody knows what " + s.PredicateType + " says"}
	}
	return chain.Verify(text, trust.Want{Kind: kind, About: about}, now)
}
