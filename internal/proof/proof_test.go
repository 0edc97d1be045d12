package proof

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func result(r Report, name string) Result {
	out := Result("")
	for _, c := range r.Checks {
		if c.Name == name && (out == "" || c.Result == Failed) {
			out = c.Result
		}
	}
	return out
}

// A whole file verifies; what it does not have is said.
func TestVerified(t *testing.T) {
	w := newWorld(t, 2, 10, 2)
	p, err := Parse(w.file())
	if err != nil {
		t.Fatal(err)
	}
	r := w.verify(p)
	if lacking := r.Lacking(append(Usual(), Ledger, Provenance, SPDX, CycloneDX)); len(lacking) > 0 {
		t.Errorf("%+v", lacking)
	}
	for _, name := range Names() {
		want := NotDone
		if slices.Contains(append(Usual(), Ledger, Provenance, SPDX, CycloneDX), name) {
			want = Done
		}
		if got := result(r, name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if r.Instances != 4 || r.Fresh.Size != int64(len(w.leaves)) || !r.Fresh.LastEntry.After(now.Add(-time.Hour)) {
		t.Errorf("%+v", r)
	}
}

// Each thing that is done to a file, and the check that refuses it.
func TestMutations(t *testing.T) {
	other := newWorld(t, 1, 3, 1)
	for name, c := range map[string]struct {
		do    func(w *world, p *Proof)
		check string
	}{
		"another trust root": {func(w *world, p *Proof) { w.chain = other.chain }, TrustRoot},
		"an expired trust root": {func(w *world, p *Proof) {
			root := w.chain.Latest().Clone()
			root.Expires = now
			w.chain = w.extend(root)
			p.TrustRoot = nil
		}, TrustRoot},
		"no root at all":                {func(w *world, p *Proof) { p.TrustRoot = []byte("{}") }, TrustRoot},
		"a checkpoint of another log":   {func(w *world, p *Proof) { p.Checkpoint = other.proof.Checkpoint }, Checkpoint},
		"a bit of the checkpoint":       {func(w *world, p *Proof) { p.Checkpoint = flip(p.Checkpoint, len("log.example\n")) }, Checkpoint},
		"a signature of the checkpoint": {func(w *world, p *Proof) { p.Checkpoint = flip(p.Checkpoint, len(p.Checkpoint)-10) }, Checkpoint},
		"an entry was edited": {func(w *world, p *Proof) {
			p.Entries[1].Leaf = bytes.Replace(p.Entries[1].Leaf, []byte("somebody"), []byte("somebodx"), 1)
		}, Record},
		"an entry at another place":   {func(w *world, p *Proof) { p.Entries[1].Index++ }, Record},
		"a bit of an inclusion proof": {func(w *world, p *Proof) { p.Entries[1].Hashes[0][3] ^= 1 }, Record},
		"an entry that is none": {func(w *world, p *Proof) {
			w.leaf([]byte(`{"kind": "x"}`))
			w.wanted = append(w.wanted, int64(len(w.leaves)-1))
			w.close()
		}, Record},
		"the order of an instance is out": {func(w *world, p *Proof) { p.Entries = p.Entries[:len(p.Entries)-1] }, Ordered},
		"no instance at all":              {func(w *world, p *Proof) { p.Instances = p.Instances[:0] }, Ordered},
		"an instance that nobody ordered": {func(w *world, p *Proof) { p.Instances[0].ID = "shop-production-web0-77" }, Ordered},
		"an instance of another component": {func(w *world, p *Proof) {
			p.Instances[0].Component = map[string]string{"web0": "web1", "web1": "web0"}[p.Instances[0].Component]
		}, Ordered},
		"an instance of another release": {func(w *world, p *Proof) { p.Instances[0].Release = digest.FromString("x") }, Ordered},
		"an instance of another spec":    {func(w *world, p *Proof) { p.Instances[0].Spec = digest.FromString("x") }, Ordered},
		"an instance of another environment": {func(w *world, p *Proof) {
			w.entry(record.Entry{Kind: "instance.ordered", App: "shop", Env: "staging", Instance: "shop-production-web0-50", Release: p.Current})
			p.Instances = append(p.Instances, Instance{ID: "shop-production-web0-50", Component: "web0", Release: p.Current, Spec: p.Instances[0].Spec})
			w.close()
		}, Ordered},
		"a release that was never added": {func(w *world, p *Proof) { w.wanted = w.wanted[1:]; w.close() }, Release},
		"the release is out":             {func(w *world, p *Proof) { delete(p.Blobs, p.Current) }, Release},
		"a release of another application": {func(w *world, p *Proof) {
			w.rel.App = "other"
			doc, err := w.rel.Canonical()
			w.must(err)
			p.Current = p.Put(doc)
		}, Release},
		"the manifest is out":      {func(w *world, p *Proof) { delete(p.Blobs, w.spec(p).Artifact) }, Artifact},
		"a layer's tree is out":    {func(w *world, p *Proof) { delete(p.Blobs, w.layer(p)) }, Tree},
		"the settings are others'": {func(w *world, p *Proof) { p.Settings[w.spec(p).Settings] = p.Put(tree("x", 1).Marshal()) }, Tree},
		"a release whose tree is another's": {func(w *world, p *Proof) {
			w.again(p, func(c *release.Component) { c.Spec.Tree = c.Spec.Settings })
		}, Tree},
		"the signature is out":              {func(w *world, p *Proof) { clear(p.Statements) }, Signature},
		"the signature of another artifact": {func(w *world, p *Proof) { w.swap(p) }, Signature},
		"a signature by the wrong role":     {func(w *world, p *Proof) { w.resay(p, "signature", trust.RoleBuilder) }, Signature},
		"provenance by the wrong role":      {func(w *world, p *Proof) { w.resay(p, "provenance", trust.RoleRelease) }, Provenance},
		"the ledger is out": {func(w *world, p *Proof) {
			delete(p.Blobs, w.rel.Environments["production"].Components[p.Instances[0].Component].Ledger)
		}, Ledger},
		"the ledger of another component": {func(w *world, p *Proof) {
			w.again(p, func(c *release.Component) { c.Ledger = w.another(p).Ledger })
		}, Ledger},
		"a ledger that forgets a file": {func(w *world, p *Proof) {
			name := p.Instances[0].Component
			w.again(p, func(c *release.Component) {
				c.Ledger = w.explain(name, c.Spec.Artifact, c.Spec.Tree, tree(name, 2), tree(name+"-top", 1))
			})
		}, Ledger},
		"an SPDX document by the right key that lists other files": {func(w *world, p *Proof) { w.restate(p, "spdx") }, SPDX},
		"a CycloneDX document that does":                           {func(w *world, p *Proof) { w.restate(p, "cyclonedx") }, CycloneDX},
		"a provenance that names other inputs":                     {func(w *world, p *Proof) { w.restate(p, "provenance") }, Provenance},
		"a release that nobody signed":                             {func(w *world, p *Proof) { delete(p.Statements, p.Current) }, Signature},
		"a release that was admitted and then refused": {func(w *world, p *Proof) {
			for _, kind := range []string{"admission.admitted", "admission.refused"} {
				w.entry(record.Entry{Kind: kind, App: "shop", Env: "production", Release: p.Current, Data: map[string]string{"policy": string(p.Current)}})
			}
			w.close()
		}, Admission},
		"an old release, shown as what runs": {func(w *world, p *Proof) {
			old, name, spec := p.Current, p.Instances[0].Component, w.spec(p)
			w.again(p, func(c *release.Component) { c.Spec.Env = map[string]string{"NEW": "1"} })
			i := slices.IndexFunc(p.Instances, func(in Instance) bool { return in.Component == name })
			p.Instances[i].Release, p.Instances[i].Spec = old, spec.Digest()
		}, Ordered},
		"a signature of no record": {func(w *world, p *Proof) {
			for i := range w.said {
				b := w.said[i].bundle
				text, err := b.Marshal()
				w.must(err)
				p.Statements[w.said[i].about] = []digest.Digest{p.Put(text)}
			}
		}, Signature},
		"a revoked key": {func(w *world, p *Proof) {
			root := w.chain.Latest().Clone()
			root.Revoked = map[trust.KeyID]trust.Revocation{w.public(trust.RoleRelease).ID(): {Reason: "stolen"}}
			w.chain = w.extend(root)
		}, Signature},
		"a log that witnesses have to see": {func(w *world, p *Proof) {
			root := w.chain.Latest().Clone()
			l := root.Logs["log.example"]
			l.Witnesses, l.Quorum = []string{record.WitnessFromSeed("w.example/1", make([]byte, 32)).PublicKey()}, 1
			root.Logs["log.example"] = l
			w.chain = w.extend(root)
		}, Checkpoint},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, 3, 1)
			c.do(w, w.proof)
			p, err := Parse(w.file())
			if err != nil {
				t.Fatal(err)
			}
			r := w.verify(p)
			lacking := r.Lacking(append(Usual(), Ledger, Provenance, SPDX, CycloneDX))
			if !slices.ContainsFunc(lacking, func(x Check) bool { return x.Name == c.check }) {
				t.Errorf("it was not refused by %s: %+v", c.check, lacking)
			}
			t.Attr("refused", c.check+" <- "+name)
		})
	}
}

// The verdict of the environment's policy counts, not another's.
func TestAdmission(t *testing.T) {
	w := newWorld(t, 1, 3, 1)
	w.entry(record.Entry{Kind: "admission.refused", App: "shop", Env: "production", Release: w.proof.Current})
	w.entry(record.Entry{Kind: "admission.admitted", App: "shop", Env: "staging", Release: w.proof.Current})
	w.close()
	if got := result(w.verify(w.proof), Admission); got != Failed {
		t.Errorf("refused here, admitted elsewhere: %s", got)
	}
	w.entry(record.Entry{Kind: "admission.admitted", App: "shop", Env: "production", Release: w.proof.Current})
	w.close()
	if got := result(w.verify(w.proof), Admission); got != Done {
		t.Errorf("admitted: %s", got)
	}
}

func flip(text string, at int) string {
	b := []byte(text)
	b[at] ^= 1
	return string(b)
}

func (w *world) extend(r trust.Root) *trust.Chain {
	c, err := w.chain.Extend(r, []crypto.Signer{w.keys[trust.RoleRoot]}, rand.Reader)
	w.must(err)
	return c
}

func (w *world) spec(p *Proof) release.Spec {
	return w.rel.Environments["production"].Components[p.Instances[0].Component].Spec
}

func (w *world) layer(p *Proof) digest.Digest {
	m, err := image.ParseManifest(p.Blobs[w.spec(p).Artifact])
	w.must(err)
	return m.Layers[0].Tree
}

// again makes the release anew, with a component changed, and has it run.
func (w *world) again(p *Proof, change func(*release.Component)) {
	name := p.Instances[0].Component
	c := w.rel.Environments["production"].Components[name]
	change(&c)
	w.rel.Environments["production"].Components[name] = c
	doc, err := w.rel.Canonical()
	w.must(err)
	p.Current = p.Put(doc)
	w.entry(record.Entry{Kind: "release.added", App: "shop", Release: p.Current})
	p.Instances = nil
	w.run(1)
	w.close()
}

// swap gives each artifact what was said of the other.
func (w *world) swap(p *Proof) {
	var about []digest.Digest
	for d := range p.Statements {
		if d != p.Current {
			about = append(about, d)
		}
	}
	p.Statements[about[0]], p.Statements[about[1]] = p.Statements[about[1]], p.Statements[about[0]]
}

// resay has another role say what was said.
func (w *world) resay(p *Proof, kind string, role trust.Role) {
	k, _ := trust.KindOf(kind)
	old := w.said
	w.said = nil
	for _, s := range old {
		statement, err := trust.ParseStatement(s.bundle.Payload)
		w.must(err)
		if statement.PredicateType == k.PredicateType {
			w.say(kind, role, s.about, statement.Predicate)
		} else {
			w.said = append(w.said, s)
		}
	}
	w.close()
}

// another is the other component.
func (w *world) another(p *Proof) release.Component {
	for name, c := range w.rel.Environments["production"].Components {
		if name != p.Instances[0].Component {
			return c
		}
	}
	panic("there is one component")
}

// restate has the builder say of each artifact what follows from another's ledger.
func (w *world) restate(p *Proof, kind string) {
	book, err := ledger.Read(p, w.another(p).Ledger)
	w.must(err)
	k, _ := trust.KindOf(kind)
	doc, err := derived[kind](book)
	w.must(err)
	old := w.said
	w.said = nil
	for _, s := range old {
		statement, err := trust.ParseStatement(s.bundle.Payload)
		w.must(err)
		if statement.PredicateType == k.PredicateType {
			w.say(kind, trust.RoleBuilder, s.about, doc)
		} else {
			w.said = append(w.said, s)
		}
	}
	w.close()
}

// A trust root that went on since the proof was taken, or since the verifier got
// theirs, counts.
func TestNewerTrustRoot(t *testing.T) {
	w := newWorld(t, 1, 3, 1)
	old := w.chain
	w.chain = w.extend(w.chain.Latest().Clone())
	if lacking := w.verify(w.proof).Lacking(Usual()); len(lacking) > 0 {
		t.Errorf("the verifier's is newer: %+v", lacking)
	}
	w.close()
	w.chain = old
	if lacking := w.verify(w.proof).Lacking(Usual()); len(lacking) > 0 {
		t.Errorf("the server's is newer: %+v", lacking)
	}
}

func TestRefusedFiles(t *testing.T) {
	w := newWorld(t, 1, 3, 1)
	good := string(w.file())
	for name, bad := range map[string]string{
		"empty": "", "not JSON": "hello", "of another schema": strings.Replace(good, Schema, "x", 1), "an unknown key": strings.Replace(good, `"app"`, `"apq"`, 1),
		"two": good + good, "half": good[:len(good)/2], "no environment": strings.Replace(good, `"env":"production"`, `"env":""`, 1),
	} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for d := range w.proof.Blobs {
		w.proof.Blobs[d] = append(w.proof.Blobs[d], ' ')
		break
	}
	if _, err := Parse(w.file()); err == nil || !strings.Contains(err.Error(), "is not what its name says") {
		t.Errorf("a blob that is another: %v", err)
	}

	// One bundle over and over: each time is a signature to check.
	w = newWorld(t, 1, 3, 1)
	for d, bundles := range w.proof.Statements {
		w.proof.Statements[d] = slices.Repeat(bundles, maxBlobs/len(bundles)+1)
		break
	}
	if _, err := Parse(w.file()); err == nil || !strings.Contains(err.Error(), "too much") {
		t.Errorf("too many statements: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	w := newWorld(f, 1, 2, 1)
	f.Add(w.file())
	f.Add([]byte(`{"schema":"ashlar.dev/proof/v1","app":"a","env":"b","blobs":{},"instances":[{"id":"x"}],"entries":[{"index":-1}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		r := w.verify(p)
		for _, name := range []string{TrustRoot, Checkpoint, Record, Bytes} {
			if result(r, name) == "" {
				t.Errorf("the check %s was left out", name)
			}
		}
		if len(p.Instances) > 0 && len(r.Lacking(Usual())) == 0 && !bytes.Contains(text, []byte(w.proof.Instances[0].ID)) {
			t.Error("an instance was accepted that the record does not know")
		}
	})
}

// BenchmarkVerify is what verifying 50 instances takes, of 10 components with 1,000
// files each: parsing the file included.
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, 10, 1000, 5)
	text := w.file()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		p, err := Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		if r := w.verify(p); len(r.Lacking(Usual())) > 0 || r.Instances != 50 {
			b.Fatal(r.Lacking(Usual()))
		}
	}
}
