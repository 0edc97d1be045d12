package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// seals reads the sealed trees of a state directory.
type seals struct{ objects *object.Store }

func openSeals(dir string) (cli.Seals, error) {
	objects, err := object.Open(dir)
	if err != nil {
		return nil, err
	}
	return seals{objects}, nil
}

// Open is image.Opener.
func (s seals) Open(d digest.Digest) (io.ReadCloser, error) { return s.objects.Open(d) }

// Find completes the beginning of a digest.
func (s seals) Find(prefix string) (digest.Digest, error) {
	if len(prefix) < 6 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return "", fault.New(fault.Invalid, "%q does not name a sealed tree", prefix).
			Mend("give its digest, 6 or more of its hexadecimal digits, or ENV/COMPONENT")
	}
	names, err := os.ReadDir(filepath.Join(s.objects.Path(), prefix[:2]))
	found := slices.DeleteFunc(names, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), prefix[2:]) })
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.Unavailable, "look for %s: %w", prefix, err)
	case len(found) == 0:
		return "", fault.New(fault.NotFound, "nothing stored has a digest that begins with %s", prefix).
			Mend("build it:  ashlar build  shows the seals")
	case len(found) > 1:
		return "", fault.New(fault.Invalid, "%s is the beginning of %d digests", prefix, len(found)).Mend("give more digits")
	}
	return digest.NewDigestFromEncoded(digest.SHA256, prefix[:2]+found[0].Name()), nil
}

// Tree reads a sealed tree.
func (s seals) Tree(d digest.Digest) (image.Tree, error) { return seal.Read(s.objects, d) }

// Ledger reads a ledger.
func (s seals) Ledger(d digest.Digest) (*ledger.Book, error) { return ledger.Read(s.objects, d) }

// Changes compares the layers that the artifacts do not have in common, if that is
// enough, and else the sealed trees.
func (s seals) Changes(from, to release.Spec) ([]image.Change, error) {
	if changes, ok := s.layerChanges(from.Artifact, to.Artifact); ok {
		return changes, nil
	}
	a, err := s.Tree(from.Tree)
	if err != nil {
		return nil, err
	}
	b, err := s.Tree(to.Tree)
	if err != nil {
		return nil, err
	}
	return image.Diff(a, b), nil
}

func (s seals) layerChanges(from, to digest.Digest) ([]image.Change, bool) {
	a, err := s.layers(from)
	if err != nil {
		return nil, false
	}
	b, err := s.layers(to)
	if err != nil {
		return nil, false
	}
	for len(a) > 0 && len(b) > 0 && a[0].Digest == b[0].Digest {
		a, b = a[1:], b[1:]
	}
	x, err := s.trees(a)
	if err != nil {
		return nil, false
	}
	y, err := s.trees(b)
	if err != nil {
		return nil, false
	}
	return image.DiffLayers(x, y)
}

func (s seals) layers(artifact digest.Digest) ([]image.Layer, error) {
	text, err := s.objects.ReadAll(artifact, image.ManifestLimit)
	if err != nil {
		return nil, err
	}
	m, err := image.ParseManifest(text)
	return m.Layers, err
}

func (s seals) trees(layers []image.Layer) ([]image.Tree, error) {
	out := make([]image.Tree, len(layers))
	for i, l := range layers {
		var err error
		if out[i], err = s.layer(l); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s seals) layer(l image.Layer) (image.Tree, error) {
	text, err := s.objects.ReadAll(l.Tree, image.TreeLimit)
	if err != nil {
		return image.Tree{}, err
	}
	return image.UnmarshalTree(text)
}

// Verify re-hashes a sealed tree.
func (s seals) Verify(ctx context.Context, d digest.Digest) (cli.SealReport, error) {
	r, err := seal.Verify(ctx, s.objects, d)
	out := cli.SealReport{Seal: d, Files: r.Files, Bytes: r.Bytes}
	for _, x := range r.Damage {
		out.Damaged = append(out.Damaged, fmt.Sprintf("%s: %s", x.Path, x.Problem))
	}
	return out, err
}
