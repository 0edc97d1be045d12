package build

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// layers names the layers of a component, side by side. When one of them is new the
// artifact is too, so root is sealed at the same time.
func (c *component) layers(ctx context.Context, trees []image.Tree, sources []made, root image.Tree) ([]image.Layer, error) {
	layers := make([]image.Layer, len(trees))
	g, ctx := errgroup.WithContext(ctx)
	fresh := false
	for i, t := range trees {
		step := c.step(StepLayer)
		raw := t.Marshal()
		tree := digest.FromBytes(raw)
		if l, ok := c.knownLayer(tree); ok {
			layers[i] = l
			step.done(Event{Text: sources[i].comment, Reused: true, Bytes: l.Size})
			continue
		}
		fresh = true
		g.Go(func() (err error) {
			if layers[i], err = c.layer(ctx, t, raw, tree); err == nil {
				step.done(Event{Text: sources[i].comment, Bytes: layers[i].Size})
			}
			return err
		})
	}
	if fresh {
		g.Go(func() (err error) {
			c.seal, err = c.sealTree(root)
			return err
		})
	}
	err := g.Wait()
	for i := range layers {
		layers[i].Comment = sources[i].comment
	}
	return layers, err
}

// layer names a new layer: its tar is streamed once to learn its digest and size,
// and never again for the same tree.
func (c *component) layer(ctx context.Context, t image.Tree, raw []byte, tree digest.Digest) (image.Layer, error) {
	d, size, err := image.LayerDigest(t, ctxOpener{ctx, c.batch})
	if err != nil {
		return image.Layer{}, fmt.Errorf("computing a layer: %w", err)
	}
	l := image.Layer{Digest: d, Size: size, Tree: tree}
	desc, err := json.Marshal(descriptor(l))
	if err != nil {
		return image.Layer{}, err
	}
	if err := c.keep(raw, desc); err != nil {
		return image.Layer{}, err
	}
	return l, c.batch.SetRef(refLayer, tree.Encoded(), digest.FromBytes(desc))
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
func (c *component) finish(ctx context.Context, art *Artifact, chapters []digest.Digest) error {
	cfg, err := c.config(art)
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
	if err := c.sealRoot(ctx, art, assembled, chapters); err != nil {
		return err
	}
	c.tell(Event{Component: c.Name, Step: StepDone, Done: true, Reused: art.Reused, Text: art.Manifest.String(), Count: art.Files, Bytes: art.Bytes})
	return nil
}

// sealRoot gives the artifact its seal and makes everything of it durable.
func (c *component) sealRoot(ctx context.Context, art *Artifact, assembled image.Artifact, chapters []digest.Digest) error {
	step := c.step(StepSeal)
	d, ok := recall(c.Objects, RefArtifact, art.Manifest.Encoded())
	if ok && c.Objects.Has(art.Manifest) && c.Objects.Has(digest.FromBytes(assembled.Config)) {
		art.Seal, art.Reused = d, true
		if err := c.ledger(art, chapters); err != nil {
			return err
		}
		step.done(Event{Text: d.String(), Reused: true})
		return c.batch.Commit()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if art.Seal = c.seal; art.Seal == "" {
		var err error
		if art.Seal, err = c.sealTree(art.Root); err != nil {
			return err
		}
	}
	if err := c.ledger(art, chapters); err != nil {
		return err
	}
	if err := c.keep(assembled.Config, assembled.Manifest); err != nil {
		return err
	}
	if err := c.batch.SetRef(RefArtifact, art.Manifest.Encoded(), art.Seal); err != nil {
		return err
	}
	if err := c.batch.Commit(); err != nil {
		return err
	}
	step.done(Event{Text: art.Seal.String()})
	return nil
}

func (c *component) sealTree(root image.Tree) (digest.Digest, error) {
	d, err := seal.PutBatch(c.batch, root)
	if err != nil {
		return "", fmt.Errorf("sealing %s: %w", c.Name, err)
	}
	return d, nil
}

// keep adds small objects to the component's batch.
func (c *component) keep(all ...[]byte) error {
	for _, b := range all {
		if _, err := c.batch.PutBytes(b); err != nil {
			return err
		}
	}
	return nil
}

// config is what an OCI runtime is told. Values of the environment stay out of it:
// they belong to the release, and an artifact is the same everywhere.
func (c *component) config(art *Artifact) (image.Config, error) {
	s, err := withImage(c.Settings, art.Image)
	if err != nil {
		return image.Config{}, err
	}
	uid, gid, err := resolveUser(c.batch, art.Root, s.User)
	if err != nil {
		return image.Config{}, fmt.Errorf("component %s: %w", c.Name, err)
	}
	return image.Config{
		Architecture: c.arch(), OS: "linux",
		User: strconv.Itoa(uid) + ":" + strconv.Itoa(gid),
		Cmd:  s.Command, Env: imageEnv(art.Image),
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
