package oci

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/image"
)

// sink hashes what is put and keeps nothing.
type sink struct{}

func (sink) Put(r io.Reader, limit int64) (digest.Digest, int64, error) {
	sum := digest.SHA256.Digester()
	n, err := io.Copy(sum.Hash(), io.LimitReader(r, limit))
	return sum.Digest(), n, err
}

// FuzzLayer: what is read of any tar makes a valid tree, or is refused.
func FuzzLayer(f *testing.F) {
	for _, b := range layered(f) {
		f.Add(b)
	}
	for _, c := range hostileLayers {
		for _, l := range c.layers {
			f.Add(tarOf(f, l...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readLayer(bytes.NewReader(b), sink{})
		if err != nil {
			return
		}
		s := newStack()
		for range 2 { // over nothing, and over itself
			if err := s.apply(l); err != nil {
				return
			}
			tree, err := s.tree()
			if err != nil {
				continue // only the tree as a whole may be too much: a path that a link makes longer
			}
			if again, err := image.UnmarshalTree(tree.Marshal()); err != nil || image.Diff(tree, again) != nil {
				t.Fatalf("the tree is not what it is encoded as: %v", err)
			}
		}
	})
}

// FuzzArchive: any archive holds an image for which all that was compared agrees, or none.
func FuzzArchive(f *testing.F) {
	sound := small1(f)
	f.Add(tarOf(f, sound.files()...))
	f.Add(tarOf(f, file{name: "manifest.json", body: `[{"Config":"c","RepoTags":["a:b"],"Layers":["l","l"]}]`}, file{name: "c", body: string(sound.json(sound.config))}, file{name: "l"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := scan(nopCloser{bytes.NewReader(b)}, int64(len(b)))
		if err != nil {
			return
		}
		got, err := find(a, Request{Arch: "amd64"})
		if err == nil && digest.FromBytes(got.manifest) != got.name {
			t.Fatalf("%s is the name of other bytes", got.name)
		}
	})
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// FuzzSaved: no file that manifest.json names is outside of the archive.
func FuzzSaved(f *testing.F) {
	f.Add([]byte(`[{"Config":"c","RepoTags":["a:b"],"Layers":["l","../l"]}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseDockerSaved(b)
		if err != nil {
			return
		}
		for _, s := range all {
			for _, name := range append(s.Layers, s.Config) {
				if _, why := memberPath(name); why != "" {
					t.Fatalf("%q %s", name, why)
				}
			}
		}
	})
}

// FuzzManifest: what passes has digests that are digests.
func FuzzManifest(f *testing.F) {
	i := small1(f)
	f.Add(i.json(i.manifest))
	f.Add(i.json(i.index))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDocument(b, "it")
		if err != nil || d.checkImage("it") != nil {
			return
		}
		for _, l := range append(d.Layers, *d.Config) {
			if l.Digest.Validate() != nil || l.Size < 0 {
				t.Fatalf("%+v passes", l)
			}
		}
	})
}
