package proof

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
)

const admitted = "admission.admitted"

// Verdicts gives the last verdict of the environment's policy on each release, by the
// entries of the file, which nobody has checked yet.
func (p *Proof) Verdicts() []record.Entry {
	entries := map[int64]record.Entry{}
	releases := map[digest.Digest]bool{}
	for _, e := range p.Entries {
		if entry, err := record.ParseLeaf(e.Leaf); err == nil {
			entries[e.Index] = entry
			releases[entry.Release] = true
		}
	}
	var out []record.Entry
	for _, d := range slices.Sorted(maps.Keys(releases)) {
		if last, ok := p.lastVerdict(entries, d); ok {
			out = append(out, last)
		}
	}
	return out
}

// lastVerdict finds the last verdict on a release among entries.
func (p *Proof) lastVerdict(entries map[int64]record.Entry, d digest.Digest) (last record.Entry, ok bool) {
	last.Index = -1
	for _, e := range entries {
		if strings.HasPrefix(e.Kind, "admission.") && e.Release == d && e.App == p.App && e.Env == p.Env && e.Index > last.Index {
			last = e
		}
	}
	return last, last.Index >= 0
}

// about checks the statements about a release, and the verdict of the policy.
func (w *work) about(d digest.Digest) {
	if w.releases[d] == nil {
		return // said already
	}
	for _, kind := range []string{Signature, Approval} {
		w.statement(kind, short(d), d, nil)
	}
	last, ok := w.p.lastVerdict(w.entries, d)
	if !ok {
		for _, check := range []string{Summary, Admission, Verdict} {
			w.notDone(check, short(d), "the file has no verdict of a policy")
		}
		return
	}
	w.statement(Summary, short(d), d, func(predicate json.RawMessage) error {
		_, err := policy.PassedFor(predicate, policy.Resource(w.p.App, w.p.Env), digest.Digest(last.Data["policy"]))
		return err
	})
	if last.Kind == admitted {
		w.done(Admission, short(d), "admitted in entry %d by the policy %s: %s", last.Index, short(digest.Digest(last.Data["policy"])), clip(last.Reason))
	} else {
		w.fail(Admission, short(d), "", "%s in entry %d: %s", last.Kind, last.Index, clip(last.Reason))
	}
	w.verdict(d, last)
}

// verdict judges again, by the policy and the facts that the record names, once what the
// facts say of statements was held against these.
func (w *work) verdict(d digest.Digest, last record.Entry) {
	q, err := w.question(d, last)
	if err != nil {
		w.missing(Verdict, short(d), err)
		return
	}
	if w.chain == nil {
		w.notDone(Verdict, short(d), "no trust root is believed")
		return
	}
	believed, err := w.supported(*q.Facts)
	if err != nil {
		w.missing(Verdict, short(d), err)
		return
	}
	if w.Judge == nil {
		w.notDone(Verdict, short(d), "there is nobody here who judges")
		return
	}
	answer, err := w.Judge(q)
	switch {
	case err != nil:
		w.notDone(Verdict, short(d), "it could not be judged again: %v", err)
	case len(answer.Faults) > 0:
		w.fail(Verdict, short(d), "", "it cannot be judged by the policy of entry %d: %v", last.Index, answer.Faults)
	case answer.Verdict == nil:
		w.notDone(Verdict, short(d), "it was not judged again")
	default:
		if other := differs(*answer.Verdict, last); other != "" {
			w.fail(Verdict, short(d), "", "judged again by the facts and the policy of entry %d, %s", last.Index, other)
			return
		}
		w.done(Verdict, short(d), "judged again by the facts and the policy of entry %d, it comes to the same in %d rules; %d statements of the facts are believed, the rest of them is the server's word",
			last.Index, len(answer.Verdict.Rules), believed)
	}
}

// question reads the facts and the policy that a verdict in the record names.
func (w *work) question(d digest.Digest, last record.Entry) (policy.Question, error) {
	q := policy.Question{Name: fmt.Sprintf("the policy of entry %d", last.Index)}
	raw, err := w.p.ReadAll(digest.Digest(last.Data["facts"]), policy.MaxFacts)
	if err != nil {
		return q, fmt.Errorf("the facts of entry %d: %w", last.Index, err)
	}
	if q.Document, err = w.p.ReadAll(digest.Digest(last.Data["policy"]), policy.MaxSize); err != nil {
		return q, fmt.Errorf("the policy of entry %d: %w", last.Index, err)
	}
	f, err := policy.ParseFacts(fmt.Sprintf("the facts of entry %d", last.Index), raw)
	if err != nil {
		return q, err
	}
	if !policy.Canonical(raw) {
		return q, fmt.Errorf("the facts of entry %d are not in their one form", last.Index)
	}
	if f.App != w.p.App || f.Env != w.p.Env || f.Release.Digest != string(d) || !f.Now.Equal(last.Time) {
		return q, fmt.Errorf("the facts of entry %d are of %s/%s, release %s, at %s", last.Index, clip(f.App), clip(f.Env), clip(f.Release.Digest), f.Now)
	}
	components := w.releases[d].Environments[w.p.Env].Components
	for _, c := range f.Release.Components {
		if have, ok := components[c.Name]; !ok || string(have.Spec.Artifact) != c.Artifact {
			return q, fmt.Errorf("the facts of entry %d have a component %q that is not the release's", last.Index, clip(c.Name))
		}
	}
	if len(f.Release.Components) != len(components) {
		return q, fmt.Errorf("the facts of entry %d have %d components; the release has %d", last.Index, len(f.Release.Components), len(components))
	}
	q.Facts = &f
	return q, nil
}
