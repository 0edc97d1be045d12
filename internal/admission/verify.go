package admission

import (
	"encoding/json"
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

// says are the few words of a predicate that rules may want.
func says(kind string, predicate json.RawMessage) map[string]string {
	out := map[string]string{}
	put := func(name, value string) {
		if value != "" && len(value) <= 1000 {
			out[name] = value
		}
	}
	switch kind {
	case "provenance": // https://slsa.dev/spec/v1.0/provenance
		var p struct {
			BuildDefinition struct {
				BuildType string `json:"buildType"`
			} `json:"buildDefinition"`
			RunDetails struct {
				Builder struct {
					ID string `json:"id"`
				} `json:"builder"`
			} `json:"runDetails"`
		}
		if json.Unmarshal(predicate, &p) == nil {
			put("builder", p.RunDetails.Builder.ID)
			put("buildType", p.BuildDefinition.BuildType)
		}
	case "test-result": // https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
		var p struct {
			Result string `json:"result"`
		}
		if json.Unmarshal(predicate, &p) == nil {
			put("result", p.Result)
		}
	}
	return out
}
