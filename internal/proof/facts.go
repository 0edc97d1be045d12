package proof

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// approval is what an approval is known by.
type approval struct {
	key        string
	index      int
	reason     string
	breakGlass bool
}

// supported holds what facts say of statements against these, and counts them.
func (w *work) supported(f policy.Facts) (int, error) {
	n := 0
	approved := map[approval]bool{}
	for _, s := range f.Release.Statements {
		v, err := w.stands(s, digest.Digest(f.Release.Digest))
		if err != nil {
			return n, err
		}
		n++
		p, err := policy.ParseApproval(v.Statement.Predicate)
		if s.Kind == Approval && err == nil && p.Environment == f.Env && (p.Until.IsZero() || f.Now.Before(p.Until)) {
			approved[approval{s.Key, s.Index, p.Reason, p.BreakGlass}] = true
		}
	}
	for _, a := range f.Release.Approvals {
		if !approved[approval{a.Key, a.Index, a.Reason, a.BreakGlass}] {
			return n, fmt.Errorf("the facts have an approval by %s that no statement of theirs gives", clip(a.Owner))
		}
	}
	for _, c := range f.Release.Components {
		for _, s := range c.Statements {
			v, err := w.stands(s, digest.Digest(c.Artifact))
			if err != nil {
				return n, err
			}
			n++
			if s.Kind != Rebuild {
				continue
			}
			if _, err := policy.RebuildOf(v.Statement.Predicate, digest.Digest(f.Release.Digest), c.Name, digest.Digest(c.Artifact)); err != nil {
				return n, fmt.Errorf("the facts have a rebuild of %s by %s that counts for nothing: %w", c.Name, clip(s.Owner), err)
			}
		}
	}
	return n, nil
}

// stands verifies a statement that facts name, which has to be what they say of it.
func (w *work) stands(s policy.Statement, about digest.Digest) (trust.Verified, error) {
	name := fmt.Sprintf("the facts name a %s by %s", clip(s.Kind), clip(s.Owner))
	kind, ok := trust.KindOf(s.Kind)
	if !ok || !slices.Contains(w.p.Statements[about], digest.Digest(s.Digest)) {
		return trust.Verified{}, fmt.Errorf("%s: %w", name, &absentError{digest.Digest(clip(s.Digest))})
	}
	raw, err := w.p.ReadAll(digest.Digest(s.Digest), trust.MaxBundle)
	if err != nil {
		return trust.Verified{}, fmt.Errorf("%s: %w", name, err)
	}
	v, err := w.chain.Verify(raw, trust.Want{Kind: kind, About: about}, w.Now)
	if err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	if v.Owner != s.Owner || string(kind.Role) != s.Role || string(v.Key) != s.Key || v.Log != s.Log || int(v.Index) != s.Index ||
		!maps.Equal(s.Says, policy.Says(kind.Name, v.Statement.Predicate)) {
		return v, fmt.Errorf("%s: it is not what they say of it", name)
	}
	return v, nil
}

// differs says in what a verdict is another than the one that an entry tells of; empty: in
// nothing. Words that explain are not compared.
func differs(v policy.Verdict, told record.Entry) string {
	if v.Admitted != (told.Kind == admitted) {
		return fmt.Sprintf("it is admitted: %t", v.Admitted)
	}
	if by := strings.Join(v.BrokenBy, ", "); by != told.Data["breakGlass"] {
		return fmt.Sprintf("the glass is broken by %q", by)
	}
	rules := 0
	for name := range told.Data {
		if strings.HasPrefix(name, "rule.") {
			rules++
		}
	}
	if rules != len(v.Rules) {
		return fmt.Sprintf("there are %d rules, not %d", len(v.Rules), rules)
	}
	for _, r := range v.Rules {
		was, _, _ := strings.Cut(told.Data["rule."+r.Name], ":")
		if was != string(r.Outcome) {
			return fmt.Sprintf("the rule %s comes to %q, not %q", r.Name, r.Outcome, clip(was))
		}
	}
	return ""
}
