package proof

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// component checks what the instances of a component are made of.
func (w *work) component(c part) {
	name := c.name(w)
	manifest, ok := w.artifact(name, c.Spec.Artifact)
	var root *image.Tree
	if ok {
		root = w.tree(name, manifest, c)
	} else {
		w.notDone(Tree, name, "its manifest is not believed")
	}
	book := w.ledger(name, c, root)
	for _, kind := range []string{Signature, Provenance, SPDX, CycloneDX, Rebuild} {
		var fits func(json.RawMessage) error
		if kind == Rebuild {
			fits = func(predicate json.RawMessage) error {
				_, err := policy.RebuildOf(predicate, c.release, c.component, c.Spec.Artifact)
				return err
			}
		}
		said := w.statement(kind, name, c.Spec.Artifact, fits)
		if said != nil && book != nil {
			w.follows(kind, name, book, said)
		}
	}
}

func (w *work) artifact(name string, d digest.Digest) (image.Manifest, bool) {
	raw, err := w.p.ReadAll(d, image.ManifestLimit)
	if err != nil {
		w.missing(Artifact, name, err)
		return image.Manifest{}, false
	}
	m, err := image.ParseManifest(raw)
	if err != nil {
		w.fail(Artifact, name, "", "%v", err)
		return m, false
	}
	config, err := w.p.ReadAll(m.Config, image.ManifestLimit)
	if err != nil {
		w.missing(Artifact, name, err)
		return m, true
	}
	if _, err := m.ParseConfig(config); err != nil {
		w.fail(Artifact, name, "", "%v", err)
		return m, true
	}
	w.done(Artifact, name, "%s, %d layers", short(d), len(m.Layers))
	return m, true
}

// missing notes what could not be looked at since the file lacks it.
func (w *work) missing(check, name string, err error) {
	var absent *absentError
	if errors.As(err, &absent) {
		w.notDone(check, name, "%v", err)
		return
	}
	w.refuse(check, name, err)
}

// tree computes the sealed trees anew and gives the artifact's root, if it is the one
// that the release says.
func (w *work) tree(name string, m image.Manifest, c part) *image.Tree {
	layers := make([]image.Tree, 0, len(m.Layers))
	for _, l := range m.Layers {
		t, err := w.readTree(l.Tree)
		if err != nil {
			w.missing(Tree, name, err)
			return nil
		}
		layers = append(layers, t)
	}
	root, err := image.Merge(layers...)
	if err != nil {
		w.fail(Tree, name, "", "%v", err)
		return nil
	}
	settings, err := w.readTree(w.p.Settings[c.Spec.Settings])
	if err != nil {
		w.missing(Tree, name, err)
		return nil
	}
	files := 0
	for _, t := range []struct {
		what string
		tree image.Tree
		want digest.Digest
	}{{"its layers give", root, c.Spec.Tree}, {"its settings give", settings, c.Spec.Settings}} {
		got, err := w.Seal(t.tree)
		if err != nil {
			w.fail(Tree, name, "", "%v", err)
			return nil
		}
		if got != t.want {
			w.fail(Tree, name, "", "%s the seal %s; the release says %s", t.what, short(got), short(t.want))
			return nil
		}
		files += len(t.tree.Entries)
	}
	w.done(Tree, name, "%s and settings %s, %d entries", short(c.Spec.Tree), short(c.Spec.Settings), files)
	return &root
}

func (w *work) readTree(d digest.Digest) (image.Tree, error) {
	raw, err := w.p.ReadAll(d, image.TreeLimit)
	if err != nil {
		return image.Tree{}, err
	}
	return image.UnmarshalTree(raw)
}

// ledger holds the ledger against the root, and gives it if it explains every entry.
func (w *work) ledger(name string, c part, root *image.Tree) *ledger.Book {
	switch {
	case c.Ledger == "":
		w.notDone(Ledger, name, "the release names none")
		return nil
	case root == nil:
		w.notDone(Ledger, name, "there is no tree to hold it against")
		return nil
	}
	book, err := ledger.Read(w.p, c.Ledger)
	if err != nil {
		w.missing(Ledger, name, err)
		return nil
	}
	if l := book.Ledger; l.Artifact != c.Spec.Artifact || l.Seal != c.Spec.Tree {
		w.fail(Ledger, name, "", "it is of the artifact %s and the seal %s", short(l.Artifact), short(l.Seal))
		return nil
	}
	if found := ledger.Check(book, *root); len(found) > 0 {
		w.fail(Ledger, name, string(found[0].Verdict), "%d entries are not as it says: /%s", len(found), clip(found[0].Path))
		return nil
	}
	w.done(Ledger, name, "%d entries, all explained, by %d inputs and %d rules", len(book.Entries), len(book.Inputs()), len(book.Rules()))
	return book
}

// follows says whether what a builder says is what follows from the ledger. It says
// nothing of kinds that do not.
func (w *work) follows(kind, name string, book *ledger.Book, said *trust.Verified) {
	var want []byte
	var err error
	switch kind {
	case SPDX:
		want, err = ledger.SPDX(book)
	case CycloneDX:
		want, err = ledger.CycloneDX(book)
	case Provenance:
		var p struct {
			Run struct {
				Builder struct {
					ID string `json:"id"`
				} `json:"builder"`
			} `json:"runDetails"`
		}
		if err = json.Unmarshal(said.Statement.Predicate, &p); err == nil {
			want, err = ledger.Provenance(book, p.Run.Builder.ID)
		}
	default:
		return
	}
	if err != nil || !same(want, said.Statement.Predicate) {
		w.fail(kind, name, string(trust.OtherArtifact), "what it says does not follow from the ledger")
	}
}

// same says whether two JSON documents are the same but for spaces, and for how
// json.Marshal spells <, > and & within statements.
func same(a, b []byte) bool {
	var x, y bytes.Buffer
	for buf, text := range map[*bytes.Buffer][]byte{&x: a, &y: b} {
		var compact bytes.Buffer
		if json.Compact(&compact, text) != nil {
			return false
		}
		json.HTMLEscape(buf, compact.Bytes())
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}
