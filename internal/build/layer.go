package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// layer names the layer of a tree: its tar is streamed once to learn its digest
// and size, and never again for the same tree.
func (c *component) layer(ctx context.Context, t image.Tree, comment string) (image.Layer, error) {
	step := c.step(StepLayer)
	raw := t.Marshal()
	tree := digest.FromBytes(raw)
	if l, ok := c.knownLayer(tree); ok {
		step.done(Event{Text: comment, Reused: true, Bytes: l.Size})
		l.Comment = comment
		return l, nil
	}
	d, size, err := image.LayerDigest(t, ctxOpener{ctx, c.Objects})
	if err != nil {
		return image.Layer{}, fmt.Errorf("computing a layer: %w", err)
	}
	l := image.Layer{Digest: d, Size: size, Tree: tree, Comment: comment}
	desc, err := json.Marshal(descriptor(l))
	if err != nil {
		return image.Layer{}, err
	}
	if err := c.keep(raw, desc); err != nil {
		return image.Layer{}, err
	}
	c.refs = append(c.refs, reference{refLayer, tree.Encoded(), digest.FromBytes(desc)})
	step.done(Event{Text: comment, Bytes: size})
	return l, nil
}

func (c *component) knownLayer(tree digest.Digest) (image.Layer, bool) {
	ref, ok := recall(c.Objects, refLayer, tree.Encoded())
	if !ok || !c.Objects.Has(tree) {
		return image.Layer{}, false
	}
	raw, err := c.Objects.ReadAll(ref, image.ManifestLimit)
	if err != nil {
		return image.Layer{}, false
	}
	var desc ocispec.Descriptor
	if err := json.Unmarshal(raw, &desc); err != nil || desc.Annotations[image.TreeAnnotation] != tree.String() {
		return image.Layer{}, false
	}
	return image.Layer{Digest: desc.Digest, Size: desc.Size, Tree: tree}, true
}

func descriptor(l image.Layer) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: l.Digest, Size: l.Size,
		Annotations: map[string]string{image.TreeAnnotation: l.Tree.String()},
	}
}

// finish assembles the manifest, seals the merged tree and makes all of it durable.
func (c *component) finish(ctx context.Context, art *Artifact) error {
	cfg, err := c.config(art.Root)
	if err != nil {
		return err
	}
	assembled, err := image.Assemble(cfg, art.Layers, nil)
	if err != nil {
		return err
	}
	art.Manifest = assembled.Digest()
	for _, e := range art.Root.Entries {
		if e.Type == image.File {
			art.Files++
			art.Bytes += e.Size
		}
	}
	if err := c.seal(ctx, art, assembled); err != nil {
		return err
	}
	c.tell(Event{Component: c.Name, Step: StepDone, Done: true, Reused: art.Reused, Text: art.Manifest.String(), Count: art.Files, Bytes: art.Bytes})
	return nil
}

func (c *component) seal(ctx context.Context, art *Artifact, assembled image.Artifact) error {
	step := c.step(StepSeal)
	d, ok := recall(c.Objects, refArtifact, art.Manifest.Encoded())
	if ok && c.Objects.Has(art.Manifest) && c.Objects.Has(digest.FromBytes(assembled.Config)) {
		art.Seal, art.Reused = d, true
		step.done(Event{Text: d.String(), Reused: true})
		return c.commit()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	if art.Seal, err = seal.PutBatch(c.batch, art.Root); err != nil {
		return fmt.Errorf("sealing %s: %w", c.Name, err)
	}
	if err := c.keep(assembled.Config, assembled.Manifest); err != nil {
		return err
	}
	c.refs = append(c.refs, reference{refArtifact, art.Manifest.Encoded(), art.Seal})
	if err := c.commit(); err != nil {
		return err
	}
	step.done(Event{Text: art.Seal.String()})
	return nil
}

// keep adds small objects to the component's batch.
func (c *component) keep(all ...[]byte) error {
	for _, b := range all {
		if _, _, err := c.batch.Put(bytes.NewReader(b), int64(len(b))); err != nil {
			return err
		}
	}
	return nil
}

func (c *component) commit() error {
	if err := c.batch.Commit(); err != nil {
		return err
	}
	refs := c.refs
	c.refs = nil
	return setRefs(c.Objects, refs)
}

// config is what an OCI runtime is told. Values of the environment stay out of it:
// they belong to the release, and an artifact is the same everywhere.
func (c *component) config(root image.Tree) (image.Config, error) {
	s := c.Settings
	uid, gid, err := resolveUser(c.Objects, root, s.User)
	if err != nil {
		return image.Config{}, fmt.Errorf("component %s: %w", c.Name, err)
	}
	return image.Config{
		Architecture: c.arch(), OS: "linux",
		User: strconv.Itoa(uid) + ":" + strconv.Itoa(gid),
		Cmd:  s.Command, Env: []string{"PATH=" + defaultPath},
		WorkDir: s.WorkDir, Port: s.Port, StopSignal: s.Stop.Signal,
	}, nil
}

// ctxOpener ends a long reading of objects with its context.
type ctxOpener struct {
	ctx context.Context
	image.Opener
}

func (o ctxOpener) Open(d digest.Digest) (io.ReadCloser, error) {
	if err := o.ctx.Err(); err != nil {
		return nil, err
	}
	return o.Opener.Open(d)
}
