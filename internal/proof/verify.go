package proof

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Verifier is what verifying needs besides the file.
type Verifier struct {
	Trust *trust.Chain // of who verifies
	Now   time.Time
	Seal  func(image.Tree) (digest.Digest, error)      // names the sealed tree of a tree
	Judge func(policy.Question) (policy.Answer, error) // judges facts by a policy; nil: nobody does
}

// Verify checks the whole file. It does not stop at what fails.
func (v Verifier) Verify(p *Proof) Report {
	w := &work{Verifier: v, p: p, entries: map[int64]record.Entry{}, releases: map[digest.Digest]*release.Release{}}
	w.Report = Report{App: p.App, Env: p.Env, Host: p.Host, Taken: p.Taken, Instances: len(p.Instances), Checks: []Check{}}
	w.trustRoot()
	w.record()
	specs := w.instances()
	for _, s := range specs {
		w.component(s)
	}
	for _, d := range slices.Sorted(maps.Keys(w.releases)) {
		w.about(d)
	}
	w.notDone(Bytes, "", "the files on disk are not in the proof: on their host,  ashlar verify %s  re-hashes them", p.Env)
	return w.Report
}

// work is one verification.
type work struct {
	Verifier
	Report
	p        *Proof
	chain    *trust.Chain // nil: none is believed
	entries  map[int64]record.Entry
	releases map[digest.Digest]*release.Release // that the file has; nil: they could not be read
}

// trustRoot chooses the newer of the trust root that is given and the server's.
func (w *work) trustRoot() {
	chain := w.Trust
	if len(w.p.TrustRoot) > 0 {
		theirs, err := trust.ParseChain(w.p.TrustRoot)
		if err != nil {
			w.refuse(TrustRoot, "", err)
			return
		}
		switch err := theirs.Follows(w.Trust); {
		case err == nil:
			chain = theirs
		case w.Trust.Follows(theirs) != nil:
			w.refuse(TrustRoot, "", err)
			return
		}
	}
	if err := chain.Fresh(w.Now); err != nil {
		w.refuse(TrustRoot, "", err)
		return
	}
	w.chain = chain
	w.done(TrustRoot, "", "version %d, expires %s", chain.Versions(), chain.Latest().Expires.Format(time.DateOnly))
}

// refuse notes a failure with its verdict.
func (w *work) refuse(name, about string, err error) {
	var r *trust.Refusal
	verdict := ""
	if errors.As(err, &r) {
		verdict = string(r.Verdict)
	}
	w.fail(name, about, verdict, "%v", err)
}

// record checks the checkpoint, and that the entries are in the record that it is of.
func (w *work) record() {
	if w.chain == nil {
		w.notDone(Checkpoint, "", "no trust root is believed")
		w.notDone(Record, "", "no checkpoint is believed")
		return
	}
	origin, _, _ := strings.Cut(w.p.Checkpoint, "\n")
	log, ok := w.chain.Latest().Logs[origin]
	if !ok {
		w.fail(Checkpoint, "", string(trust.NotLogged), "the trust root does not know the log %q", clip(origin))
		w.notDone(Record, "", "no checkpoint is believed")
		return
	}
	seen, finding := log.Auditor().Open([]byte(w.p.Checkpoint))
	if finding != nil {
		w.fail(Checkpoint, "", string(finding.Verdict), "%s", finding.What)
		w.notDone(Record, "", "no checkpoint is believed")
		return
	}
	w.Fresh = Freshness{Size: seen.Size, Seen: seen.Cosignatures}
	w.done(Checkpoint, "", "%s, %d entries, seen by %d witnesses", origin, seen.Size, len(seen.Cosignatures))
	for _, e := range w.p.Entries {
		if err := record.CheckInclusion(e.Hashes, seen.Size, seen.Root, e.Index, e.Leaf); err != nil {
			w.fail(Record, "", "", "%v", err)
			continue
		}
		if record.IsStatement(e.Leaf) {
			continue
		}
		entry, err := record.ParseLeaf(e.Leaf)
		if err != nil || entry.Index != e.Index {
			w.fail(Record, "", string(record.Malformed), "entry %d is none, or says that it is another", e.Index)
			continue
		}
		w.entries[e.Index] = entry
		if entry.Time.After(w.Fresh.LastEntry) {
			w.Fresh.LastEntry = entry.Time
		}
	}
	if len(w.entries) > 0 || len(w.p.Entries) == 0 {
		w.done(Record, "", "%d entries are proven to be in it", len(w.entries))
	}
}

// part is a component of a release that instances run of.
type part struct {
	release   digest.Digest
	component string
	release.Component
}

func (p part) name(w *work) string {
	if p.release == w.p.Current {
		return p.component
	}
	return p.component + " of " + short(p.release)
}

// instances checks each instance against the record and its release, and gives what
// they are made of.
func (w *work) instances() []part {
	ordered := map[string]record.Entry{}
	for _, index := range slices.Sorted(maps.Keys(w.entries)) {
		e := w.entries[index]
		if e.Kind == "instance.ordered" && e.App == w.p.App && e.Env == w.p.Env {
			ordered[e.Instance] = e
		}
	}
	if w.p.Current != "" {
		w.release(w.p.Current)
	}
	parts := map[string]part{}
	for _, in := range w.p.Instances {
		e, ok := ordered[in.ID]
		switch {
		case len(w.entries) == 0:
			w.notDone(Ordered, in.ID, "no entry of the record is believed")
			continue
		case !ok:
			w.fail(Ordered, in.ID, "", "no entry in the file tells that it was ordered")
			continue
		case e.Release != in.Release:
			w.fail(Ordered, in.ID, "", "the record tells that it was ordered by %s, not by %s", short(e.Release), short(in.Release))
			continue
		case !named(in.ID, w.p.App, w.p.Env, in.Component):
			w.fail(Ordered, in.ID, "", "its name is not one of the component %q", clip(in.Component))
			continue
		}
		rel := w.release(in.Release)
		if rel == nil {
			w.notDone(Ordered, in.ID, "its release is not believed")
			continue
		}
		c, ok := rel.Environments[w.p.Env].Components[in.Component]
		if !ok {
			w.fail(Ordered, in.ID, "", "its release has no component %q in %s", clip(in.Component), w.p.Env)
			continue
		}
		if spec := c.Spec.Digest(); spec != in.Spec {
			w.fail(Ordered, in.ID, "", "what runs is said to be %s; its release says %s", short(in.Spec), short(spec))
			continue
		}
		w.done(Ordered, in.ID, "ordered in entry %d by %s", e.Index, short(in.Release))
		parts[string(in.Release)+in.Component] = part{in.Release, in.Component, c}
	}
	out := make([]part, 0, len(parts))
	for _, key := range slices.Sorted(maps.Keys(parts)) {
		out = append(out, parts[key])
	}
	return out
}

// named says whether an ID is one of a component: APP-ENV-COMPONENT-NUMBER.
func named(id, app, env, component string) bool {
	rest, ok := strings.CutPrefix(id, app+"-"+env+"-"+component+"-")
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

// release reads a release document, once.
func (w *work) release(d digest.Digest) *release.Release {
	if rel, ok := w.releases[d]; ok {
		return rel
	}
	w.releases[d] = nil
	doc, err := w.p.ReadAll(d, release.MaxSize)
	if err != nil {
		w.fail(Release, short(d), "", "%v", err)
		return nil
	}
	rel, err := release.Parse(doc)
	if err != nil {
		w.fail(Release, short(d), "", "%v", err)
		return nil
	}
	if rel.App != w.p.App {
		w.fail(Release, short(d), "", "it is of the application %q", clip(rel.App))
		return nil
	}
	for _, index := range slices.Sorted(maps.Keys(w.entries)) {
		if e := w.entries[index]; e.Kind == "release.added" && e.Release == d {
			w.done(Release, short(d), "added by %s in entry %d, on %s", e.Actor, e.Index, e.Time.Format(time.DateTime))
			w.releases[d] = &rel
			return &rel
		}
	}
	w.fail(Release, short(d), "", "no entry in the file tells that it was added")
	return nil
}

func short(d digest.Digest) string {
	if text := d.String(); len(text) > 19 {
		return text[:19]
	}
	return d.String()
}

func clip(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}
