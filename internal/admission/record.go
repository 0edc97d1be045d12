package admission

import (
	"bytes"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/trust"
)

// record has a statement recorded that lacks nothing but the proof that it is: who pushes one
// to the registry need not be able to speak to the server. It gives the bundle that bears the
// proof, one of those that are known if somebody had it recorded before; its error is why
// there is none.
func (g *gathering) record(bundle, about digest.Digest, known []digest.Digest, refused error) (digest.Digest, error) {
	var r *trust.Refusal
	if g.a.Record == nil || !errors.As(refused, &r) || r.Verdict != trust.NotLogged {
		return "", refused
	}
	g.a.mu.Lock()
	proven, ok := g.a.recorded[bundle]
	g.a.mu.Unlock()
	if ok {
		return proven, nil
	}
	text, err := g.a.Bundle(bundle)
	if err != nil {
		return "", err
	}
	b, err := trust.ParseBundle(text)
	if err != nil || b.Log != nil {
		return "", refused
	}
	if proven = g.twin(b, known); proven == "" {
		s, err := trust.ParseStatement(b.Payload)
		if err != nil {
			return "", err
		}
		kind, _ := trust.KindOf(s.PredicateType)
		if _, err := g.chain.Verify(text, trust.Want{Kind: kind, About: about, NoProof: true}, g.now); err != nil {
			return "", err
		}
		key, _ := g.chain.Key(b.Key)
		if proven, err = g.a.Record(g.ctx, about, b, key); err != nil {
			return "", err
		}
	}
	g.a.mu.Lock()
	defer g.a.mu.Unlock()
	if len(g.a.recorded) >= maxVerified {
		clear(g.a.recorded)
	}
	g.a.recorded[bundle] = proven
	return proven, nil
}

// twin finds the same statement with a proof.
func (g *gathering) twin(b trust.Bundle, known []digest.Digest) digest.Digest {
	for _, d := range known {
		text, err := g.a.Bundle(d)
		if err != nil {
			continue
		}
		other, err := trust.ParseBundle(text)
		if err == nil && other.Log != nil && other.Key == b.Key && bytes.Equal(other.Payload, b.Payload) && bytes.Equal(other.Signature, b.Signature) {
			return d
		}
	}
	return ""
}
