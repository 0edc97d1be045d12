package proof

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a server that has something running: keys, a trust root, a record.
type world struct {
	t      testing.TB
	keys   map[trust.Role]*ecdsa.PrivateKey
	chain  *trust.Chain
	log    note.Signer
	logKey string
	leaves [][]byte
	hashes []tlog.Hash
	rel    release.Release
	proof  *Proof
	wanted []int64 // entries that belong into the proof
	said   []said
}

// said is a statement that is in the record, whose proof is made later.
type said struct {
	bundle trust.Bundle
	index  int64
	about  digest.Digest
}

// newWorld has components of so many files each, with so many instances each.
func newWorld(t testing.TB, components, files, instances int) *world {
	t.Helper()
	w := &world{t: t, keys: map[trust.Role]*ecdsa.PrivateKey{}, proof: New("shop", "production", now)}
	private, public, err := note.GenerateKey(rand.Reader, "log.example")
	w.must(err)
	w.logKey = public
	w.log, err = note.NewSigner(private)
	w.must(err)
	r := trust.Root{Expires: now.AddDate(1, 0, 0), Keys: map[trust.KeyID]trust.Key{}, Roles: map[trust.Role]trust.Holders{}, Logs: map[string]trust.Log{"log.example": {Key: public}}}
	for _, role := range trust.Roles() {
		w.keys[role], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.must(err)
		k := w.public(role)
		r.Keys[k.ID()] = trust.NewKey(k, string(role))
		r.Roles[role] = trust.Holders{KeyIDs: []trust.KeyID{k.ID()}, Threshold: 1}
	}
	w.chain, err = (*trust.Chain)(nil).Extend(r, []crypto.Signer{w.keys[trust.RoleRoot]}, rand.Reader)
	w.must(err)
	w.lay(components, files)
	w.run(instances)
	w.close()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) public(role trust.Role) trust.PublicKey {
	w.t.Helper()
	k, err := trust.NewPublicKey(w.keys[role].Public())
	w.must(err)
	return k
}

// sealOf is how the server seals.
func sealOf(t image.Tree) (digest.Digest, error) {
	var b bytes.Buffer
	err := seal.Write(&b, t)
	return digest.FromBytes(b.Bytes()), err
}

// tree makes a tree of files.
func tree(name string, files int) image.Tree {
	t := image.Tree{Entries: []image.Entry{{Path: ".", Type: image.Dir, Mode: 0o755}, {Path: "usr", Type: image.Dir, Mode: 0o755}}}
	for i := range files {
		d := digest.FromString(fmt.Sprint(name, i))
		t.Entries = append(t.Entries, image.Entry{Path: fmt.Sprintf("usr/%s-%06d", name, i), Type: image.File, Mode: 0o644, Size: int64(i + 1), Digest: d})
	}
	return t
}

// lay makes a release of components, puts it into the record and has it signed.
func (w *world) lay(components, files int) {
	w.t.Helper()
	env := release.Environment{Platform: "local", Rollout: release.Rollout{Strategy: "blue-green"}, Keep: 5, Components: map[string]release.Component{}}
	var artifacts []digest.Digest
	for i := range components {
		name := fmt.Sprintf("web%d", i)
		bottom, top, settings := tree(name, files), tree(name+"-top", 1), tree(name+"-settings", 1)
		var layers []image.Layer
		for _, t := range []image.Tree{bottom, top} {
			layers = append(layers, image.Layer{Digest: digest.FromString(name + " tar"), Size: 1, Tree: w.proof.Put(t.Marshal())})
		}
		art, err := image.Assemble(image.Config{Architecture: "amd64", OS: "linux"}, layers, nil)
		w.must(err)
		root, err := image.Merge(bottom, top)
		w.must(err)
		sealed, err := sealOf(root)
		w.must(err)
		set, err := sealOf(settings)
		w.must(err)
		w.proof.Put(art.Config)
		w.proof.Settings[set] = w.proof.Put(settings.Marshal())
		artifacts = append(artifacts, w.proof.Put(art.Manifest))
		env.Components[name] = release.Component{Replicas: 1, Ledger: w.explain(name, art.Digest(), sealed, bottom, top), Spec: release.Spec{
			Artifact: art.Digest(), Tree: sealed, Settings: set, Command: []string{"/usr/web"}, WorkDir: "/", StopSignal: "SIGTERM",
		}}
	}
	w.rel = release.Release{Schema: release.Schema, App: "shop", Environments: map[string]release.Environment{"production": env}}
	doc, err := w.rel.Canonical()
	w.must(err)
	w.proof.Current = w.proof.Put(doc)
	w.entry(record.Entry{Kind: "release.added", App: "shop", Release: w.proof.Current})
	for _, d := range append(artifacts, w.proof.Current) {
		w.say("signature", trust.RoleRelease, d, nil)
	}
	for _, c := range env.Components {
		book, err := ledger.Read(w.proof, c.Ledger)
		w.must(err)
		for kind, write := range derived {
			doc, err := write(book)
			w.must(err)
			w.say(kind, trust.RoleBuilder, c.Spec.Artifact, doc)
		}
	}
}

// derived is what a builder says.
var derived = map[string]func(*ledger.Book) ([]byte, error){
	"spdx": ledger.SPDX, "cyclonedx": ledger.CycloneDX,
	"provenance": func(b *ledger.Book) ([]byte, error) { return ledger.Provenance(b, "https://builder.example/<1>") },
}

// explain makes a ledger in which a package brought everything.
func (w *world) explain(name string, artifact, sealed digest.Digest, layers ...image.Tree) digest.Digest {
	l := ledger.Ledger{Schema: ledger.Schema, Component: name, Arch: "amd64", Artifact: artifact, Seal: sealed}
	for i, t := range layers {
		c := ledger.NewWriter(fmt.Sprint("debian ", i))
		o := c.Origin(ledger.Origin{Kind: ledger.KindDebian, Name: fmt.Sprint("p", i), Version: "1", Arch: "amd64", Digest: digest.FromString("deb"), Size: 1, Place: "https://example.com/p.deb", Distribution: "bookworm"})
		for _, e := range t.Entries {
			c.Line(ledger.Line{Path: e.Path, Origin: o})
		}
		raw, err := json.Marshal(c.Chapter())
		w.must(err)
		raw, err = jcs.Transform(raw)
		w.must(err)
		l.Layers = append(l.Layers, ledger.Layer{Chapter: w.proof.Put(raw), Tree: w.proof.Put(t.Marshal())})
	}
	raw, err := json.Marshal(l)
	w.must(err)
	raw, err = jcs.Transform(raw)
	w.must(err)
	return w.proof.Put(raw)
}

// run orders instances of every component.
func (w *world) run(instances int) {
	for name, c := range w.rel.Environments["production"].Components {
		for range instances {
			id := fmt.Sprintf("shop-production-%s-%d", name, len(w.proof.Instances)+1)
			w.proof.Instances = append(w.proof.Instances, Instance{ID: id, Component: name, Release: w.proof.Current, Spec: c.Spec.Digest(), Phase: "ready", StartedAt: now})
			w.entry(record.Entry{Kind: "instance.ordered", App: "shop", Env: "production", Instance: id, Release: w.proof.Current})
			w.leaf([]byte("something else")) // of another environment
		}
	}
}

// entry appends to the record what belongs into the proof.
func (w *world) entry(e record.Entry) {
	w.t.Helper()
	e.Index, e.Time, e.Actor = int64(len(w.leaves)), w.next(), "somebody"
	leaf, err := e.Leaf()
	w.must(err)
	w.wanted = append(w.wanted, w.leaf(leaf))
}

// next is the time of the next entry.
func (w *world) next() time.Time {
	return now.Add(time.Duration(len(w.leaves))*time.Second - time.Hour)
}

func (w *world) leaf(leaf []byte) int64 {
	w.t.Helper()
	n := int64(len(w.leaves))
	hashes, _, err := record.Append(n, [][]byte{leaf}, w)
	w.must(err)
	w.leaves, w.hashes = append(w.leaves, leaf), append(w.hashes, hashes...)
	return n
}

// ReadHashes is tlog.HashReader.
func (w *world) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, w.hashes[i])
	}
	return out, nil
}

// say makes a statement that is recorded.
func (w *world) say(kind string, role trust.Role, about digest.Digest, predicate []byte) {
	w.t.Helper()
	k, _ := trust.KindOf(kind)
	s, err := trust.NewStatement(k, "", about, predicate)
	w.must(err)
	b, err := trust.Sign(s, w.keys[role], rand.Reader)
	w.must(err)
	body, err := b.LogEntry(w.public(role))
	w.must(err)
	w.said = append(w.said, said{b, w.leaf(body), about})
}

// close signs the record and puts all proofs into the file.
func (w *world) close() {
	w.t.Helper()
	v, err := note.NewVerifier(w.logKey)
	w.must(err)
	prove := w.prove()
	w.proof.Statements = map[digest.Digest][]digest.Digest{}
	for _, s := range w.said {
		s.bundle.Log = &trust.Logged{LogID: trust.LogID(v, w.logKey), Body: w.leaves[s.index], Proof: prove(s.index)}
		text, err := s.bundle.Marshal()
		w.must(err)
		w.proof.Statements[s.about] = append(w.proof.Statements[s.about], w.proof.Put(text))
	}
	w.proof.TrustRoot, err = w.chain.Marshal()
	w.must(err)
}

// prove signs the record and proves the entries; statements stay as they were recorded.
func (w *world) prove() func(index int64) record.InclusionProof {
	w.t.Helper()
	size := int64(len(w.leaves))
	root, err := record.Root(size, w)
	w.must(err)
	signed, err := record.Checkpoint{Origin: "log.example", Size: size, Root: root}.Sign(w.log)
	w.must(err)
	w.proof.Checkpoint, w.proof.Entries = "", []Entry{}
	prove := func(index int64) record.InclusionProof {
		hashes, err := record.ProveInclusion(size, index, w)
		w.must(err)
		return record.InclusionProof{Index: index, Leaf: w.leaves[index], Hashes: hashes, Checkpoint: signed}
	}
	for _, index := range w.wanted {
		w.must(w.proof.Add(prove(index)))
	}
	return prove
}

func (w *world) file() []byte {
	w.t.Helper()
	text, err := w.proof.Marshal()
	w.must(err)
	return text
}

func (w *world) verify(p *Proof) Report {
	return Verifier{Trust: w.chain, Now: now, Seal: sealOf, Judge: judged}.Verify(p)
}
