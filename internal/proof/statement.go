package proof

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/trust"
)

// statement checks what is said of one kind, and gives the first that is believed. What
// fits does not accept is as if it had not been said; nil accepts everything.
func (w *work) statement(name, about string, d digest.Digest, fits func(predicate json.RawMessage) error) *trust.Verified {
	kind, _ := trust.KindOf(name)
	if w.chain == nil {
		w.notDone(name, about, "no trust root is believed")
		return nil
	}
	var bundles [][]byte
	misfit := errors.New("the file has no such statement")
	for _, b := range w.p.Statements[d] {
		raw, err := w.p.ReadAll(b, trust.MaxBundle)
		if err != nil {
			w.fail(name, about, "", "%v", err)
			return nil
		}
		s := unverified(raw)
		if s.PredicateType != kind.PredicateType {
			continue
		}
		if fits != nil {
			if err := fits(s.Predicate); err != nil {
				misfit = fmt.Errorf("none of the file's counts: %w", err)
				continue
			}
		}
		bundles = append(bundles, raw)
	}
	if len(bundles) == 0 {
		w.notDone(name, about, "%v", misfit)
		return nil
	}
	got, err := w.chain.VerifyAll(bundles, trust.Want{Kind: kind, About: d}, w.Now)
	if err != nil {
		w.refuse(name, about, err)
		return nil
	}
	var by []string
	for _, v := range got {
		by = append(by, fmt.Sprintf("%s (%s), entry %d of %s", v.Owner, v.Key[:12], v.Index, v.Log))
	}
	slices.Sort(by)
	w.done(name, about, "by %s", strings.Join(by, "; "))
	return &got[0]
}

// unverified is what a bundle says that it says; the zero Statement if it cannot be read:
// then it counts for no kind, and is none that is asked for.
func unverified(bundle []byte) trust.Statement {
	b, err := trust.ParseBundle(bundle)
	if err != nil {
		return trust.Statement{}
	}
	var s trust.Statement
	if json.Unmarshal(b.Payload, &s) != nil {
		return trust.Statement{}
	}
	return s
}
