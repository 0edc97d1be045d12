package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/local"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/proof"
	"github.com/ashlar-infra/ashlar/internal/referrer"
	"github.com/ashlar-infra/ashlar/internal/registry"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// sealOf names the sealed tree of a tree.
func sealOf(t image.Tree) (digest.Digest, error) {
	var b bytes.Buffer
	err := seal.Write(&b, t)
	return digest.FromBytes(b.Bytes()), err
}

// collectProof adds what the object store has of the releases in the proof: manifests,
// trees, and the statements about them. What it has not is left out: verifying says so.
func collectProof(dir string, p *proof.Proof) (err error) {
	objects, err := object.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	c := collecting{objects, p}
	for _, e := range p.Verdicts() {
		c.add(digest.Digest(e.Data["facts"]), policy.MaxFacts)
	}
	runs := map[digest.Digest]map[string]bool{}
	for _, in := range p.Instances {
		if runs[in.Release] == nil {
			runs[in.Release] = map[string]bool{}
		}
		runs[in.Release][in.Component] = true
	}
	if p.Current != "" && runs[p.Current] == nil {
		runs[p.Current] = map[string]bool{}
	}
	for d, components := range runs {
		rel, err := release.Parse(p.Blobs[d])
		if err != nil {
			return err
		}
		if err := c.statements(d); err != nil {
			return err
		}
		for name, comp := range rel.Environments[p.Env].Components {
			if err := c.statements(comp.Spec.Artifact); err != nil { // also of what does not run: it was judged too
				return err
			}
			if !components[name] {
				continue
			}
			if err := c.component(comp); err != nil {
				return err
			}
		}
	}
	return nil
}

type collecting struct {
	objects *object.Store
	p       *proof.Proof
}

// add puts an object into the proof and gives its bytes; nil if it is not stored, or
// not whole.
func (c collecting) add(d digest.Digest, limit int64) []byte {
	if have, ok := c.p.Blobs[d]; ok {
		return have
	}
	raw, err := c.objects.ReadAll(d, limit)
	if err != nil {
		return nil
	}
	c.p.Put(raw)
	return raw
}

func (c collecting) component(comp release.Component) error {
	raw := c.add(comp.Spec.Artifact, image.ManifestLimit)
	if m, err := image.ParseManifest(raw); err == nil {
		c.add(m.Config, image.ManifestLimit)
		for _, l := range m.Layers {
			c.add(l.Tree, image.TreeLimit)
		}
	}
	if _, ok := c.p.Settings[comp.Spec.Settings]; !ok {
		if t, err := seal.Read(c.objects, comp.Spec.Settings); err == nil {
			c.p.Settings[comp.Spec.Settings] = c.p.Put(t.Marshal())
		}
	}
	if comp.Ledger != "" {
		if l, err := ledger.Parse(c.add(comp.Ledger, ledger.MaxLedger)); err == nil {
			for _, y := range l.Layers {
				c.add(y.Chapter, ledger.MaxChapter)
				c.add(y.Tree, image.TreeLimit)
			}
		}
	}
	return nil
}

func (c collecting) statements(about digest.Digest) error {
	if _, ok := c.p.Statements[about]; ok {
		return nil
	}
	all, err := registry.Statements(c.objects, about)
	for _, b := range referrer.Bundles(c.objects, all, "") {
		c.p.Statements[about] = append(c.p.Statements[about], c.p.Put(b))
	}
	return err
}

// verifyLive re-hashes the sealed trees of what runs, and reads the root of every
// instance as its processes see it.
func verifyLive(ctx context.Context, dir string, p *proof.Proof) (_ []proof.Check, err error) {
	objects, err := object.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	v := liveness{ctx: ctx, runDir: cli.RunDir(dir), objects: objects, trees: map[digest.Digest]image.Tree{}}
	for _, in := range p.Instances {
		rel, err := release.Parse(p.Blobs[in.Release])
		if err != nil {
			return nil, err
		}
		v.instance(in.ID, rel.Environments[p.Env].Components[in.Component].Spec)
	}
	return v.checks, ctx.Err()
}

type liveness struct {
	ctx     context.Context
	runDir  string
	objects *object.Store
	trees   map[digest.Digest]image.Tree // by seal: those that were verified
	checks  []proof.Check
}

func (v *liveness) note(about string, err error, format string, args ...any) {
	c := proof.Check{Name: proof.Bytes, About: about, Result: proof.Done, What: fmt.Sprintf(format, args...)}
	if err != nil {
		f := fault.Of(err)
		c.Result, c.What = proof.Failed, strings.Join(append([]string{f.What}, f.Details...), "; ")
	}
	v.checks = append(v.checks, c)
}

func (v *liveness) instance(id string, spec release.Spec) {
	var layers []image.Tree
	for _, d := range []digest.Digest{spec.Tree, spec.Settings} {
		t, ok := v.trees[d]
		if !ok {
			r, err := seal.Verify(v.ctx, v.objects, d)
			if err == nil {
				t, err = seal.Read(v.objects, d)
			}
			v.note("seal "+string(d)[:19], err, "%d files, %d bytes on disk are what was sealed", r.Files, r.Bytes)
			if err != nil {
				continue
			}
			v.trees[d] = t
		}
		layers = append(layers, t)
	}
	if len(layers) < 2 {
		v.checks = append(v.checks, proof.Check{Name: proof.Bytes, About: id, Result: proof.NotDone, What: "what was sealed is damaged: there is nothing to compare its mount with"})
		return
	}
	root, err := local.RootOf(v.runDir, id)
	if err != nil {
		v.note(id, err, "")
		return
	}
	m, err := seal.VerifyMounted(v.ctx, root, layers...)
	what := ""
	if n := len(m.Covered); n > 0 {
		slices.Sort(m.Covered)
		what = ", but for what is mounted on it: /" + strings.Join(m.Covered, ", /")
	}
	v.note(id, err, "its root is what was sealed, %d files, %d bytes%s", m.Files, m.Bytes, what)
}
