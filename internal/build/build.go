// Package build turns a definition into artifacts and a release: it runs every
// source of every component, makes one layer of each, assembles the OCI manifest
// and seals the merged tree.
//
//	go:     -> go build      \
//	files:  -> globs          }-> entries -> layer tree -> manifest -> sealed tree -> release
//	debian: -> lock -> .debs / (minimised, where that is asked for: see package minimal)
//	image:  -> lock -> layers/
//	dockerfile: -> somebody else's program -> the same as image:
//
// Nothing of the inputs is executed but the Go compiler, and what a Dockerfile runs. A build is a function of
// its inputs: no time, path, user, umask or locale gets into an artifact, which
// TestSameInputsSameDigests proves. Every step is remembered under the digest of
// what it was made from (kinds of references "go", "layer", "artifact" and
// "settings", beside what package debian keeps), so unchanged inputs rebuild nothing and a one-line change
// re-does what it touches.
//
// External inputs are pinned in ashlar.lock, see [LockFile].
//
// Start at [Release]; [Component] is one artifact, [ExportLayout] makes an OCI
// image of it on disk.
package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Builder is what building needs of its surroundings. Objects and Dir are required.
type Builder struct {
	Objects    *object.Store
	Dir        string    // state directory; disposable caches are in Dir/cache
	Definition string    // directory of ashlar.yaml; default the parsed definition's
	Lock       *LockFile // pinned inputs; nil: none yet. PrepareLock fills it

	Locked bool // fail rather than change the lock
	Update bool // resolve every external input anew
	Anew   bool // a build that is compared with another: Dockerfiles are built without caches, whatever is locked

	Progress func(Event)                       // nil: nobody looks; may be called from several goroutines
	GoTool   string                            // Go command; default "go"
	Arch     string                            // GOARCH of the artifacts; default the host's
	Fetcher  debian.Fetcher                    // default HTTP
	Pull     Puller                            // of images in registries
	Apt      fs.FS                             // default the host's /etc/apt
	ReadFile func(name string) ([]byte, error) // keyrings, by absolute path; default os.ReadFile
	Now      func() time.Time                  // for the validity of signatures and the age of files; default time.Now
	Environ  func() []string                   // default os.Environ
}

// Event is a sign of progress of one step of one component.
type Event struct {
	Component string        `json:"component,omitempty"`
	Step      Step          `json:"step"`
	Text      string        `json:"text,omitempty"`   // what is worked on, or what came out
	Done      bool          `json:"done,omitempty"`   // the step is over
	Reused    bool          `json:"reused,omitempty"` // it was done before: nothing was made
	Count     int           `json:"count,omitempty"`  // of Total items, where they are counted
	Total     int           `json:"total,omitempty"`
	Bytes     int64         `json:"bytes,omitempty"` // read, fetched or written by the step
	Took      time.Duration `json:"took,omitempty"`  // of a step that is done
}

// Step names a step of a build.
type Step string

// The steps, in the order in which a component meets them.
const (
	StepLock     Step = "lock"     // external inputs are resolved
	StepFetch    Step = "fetch"    // packages are brought into the object store
	StepUnpack   Step = "unpack"   // packages, or an image's layers, become a tree
	StepMinimise Step = "minimise" // what no program needs is left out
	StepImage    Step = "image"    // a Dockerfile is built
	StepGo       Step = "go"       // a Go program is compiled
	StepFiles    Step = "files"    // files are read
	StepLayer    Step = "layer"    // a layer's digest is computed
	StepSeal     Step = "seal"     // the tree is sealed
	StepDone     Step = "done"     // the artifact is there
	StepSettings Step = "settings" // a settings layer is sealed; of no component
)

// Artifact is what became of a component.
type Artifact struct {
	Component string
	Manifest  digest.Digest // of the OCI manifest: the artifact's name
	Seal      digest.Digest // of the sealed tree
	Root      image.Tree    // the root file system
	Layers    []image.Layer
	Ledger    digest.Digest // of the ledger.Ledger that explains Root
	Files     int           // regular files in Root
	Bytes     int64         // of their contents
	Reused    bool          // artifact and seal were on hand

	Image *ocispec.ImageConfig // what the image that it is built from says about running it; nil: no image
}

// Component builds one component. It holds no lock: callers share the object
// store (object.Store.Share) until what they made is referred to.
func Component(ctx context.Context, b *Builder, c definition.Component) (Artifact, error) {
	run, err := b.begin(c)
	if err != nil {
		return Artifact{}, err
	}
	defer run.content.Close()
	defer run.batch.Discard()
	art, err := run.build(ctx)
	if err != nil {
		return Artifact{}, err
	}
	if err := run.cache.save(); err != nil {
		return Artifact{}, fmt.Errorf("saving the cache of file digests: %w", err)
	}
	return art, nil
}

// component is one component being built.
type component struct {
	*Builder
	definition.Component
	content *content
	cache   *statCache
	batch   *object.Batch // all that is new, made durable together
	seal    digest.Digest // of the root, once it is in the batch; empty before
}

func (b *Builder) begin(c definition.Component) (*component, error) {
	dir, err := filepath.Abs(b.Definition)
	if err != nil {
		return nil, err
	}
	cache := openStatCache(b.cachePath("stat", dir, c.Name), b.now)
	content, err := openContent(dir, cache)
	if err != nil {
		return nil, err
	}
	return &component{Builder: b, Component: c, content: content, cache: cache, batch: b.Objects.NewBatch()}, nil
}

// cachePath is a file of the disposable caches, named after its kind and key.
func (b *Builder) cachePath(kind string, key ...string) string {
	h := sha256.New()
	for _, k := range key {
		fmt.Fprintf(h, "%d:%s", len(k), k)
	}
	return filepath.Join(b.Dir, "cache", kind, hex.EncodeToString(h.Sum(nil)[:16]))
}

// made is what a source gives: entries, complete or not, a remark for people, and
// where the entries come from.
type made struct {
	entries []image.Entry
	comment string
	explain explainer            // nil with a chapter
	chapter digest.Digest        // of the object that explains entries, where there is one already
	image   *ocispec.ImageConfig // of an image source
}

func (c *component) build(ctx context.Context) (art Artifact, err error) {
	sources, err := c.sources(ctx)
	if err != nil {
		return Artifact{}, err
	}
	// The disk takes as long as what comes next does in memory.
	var settling errgroup.Group
	settling.Go(c.batch.Settle)
	defer func() {
		if settled := settling.Wait(); err == nil {
			err = settled
		}
	}()
	art = Artifact{Component: c.Name, Image: imageConfig(sources)}
	trees := make([]image.Tree, len(sources))
	chapters := make([]digest.Digest, len(sources))
	for i, s := range sources {
		var from []int
		if trees[i], from, err = place(art.Root, s.entries); err != nil {
			return Artifact{}, at(err, c.Build[i].Where)
		}
		if chapters[i], err = c.chapter(s, art.Root, trees[i], from); err != nil {
			return Artifact{}, at(err, c.Build[i].Where)
		}
		if i == 0 {
			art.Root = trees[i]
		} else if art.Root, err = image.Merge(art.Root, trees[i]); err != nil {
			return Artifact{}, at(err, c.Build[i].Where)
		}
	}
	if art.Layers, err = c.layers(ctx, trees, sources, art.Root); err != nil {
		return Artifact{}, err
	}
	if err := settling.Wait(); err != nil {
		return Artifact{}, err
	}
	return art, c.finish(ctx, &art, chapters)
}

// sources runs all sources side by side: none needs what another makes.
func (c *component) sources(ctx context.Context) ([]made, error) {
	out := make([]made, len(c.Build))
	g, ctx := errgroup.WithContext(ctx)
	for i, src := range c.Build {
		g.Go(func() error {
			m, err := c.source(ctx, src)
			out[i] = m
			return at(err, src.Where)
		})
	}
	return out, g.Wait()
}

func (c *component) source(ctx context.Context, src definition.Source) (made, error) {
	switch {
	case src.Go != nil:
		return c.goSource(ctx, src.Go)
	case src.Files != nil:
		step := c.step(StepFiles)
		reads := c.cache.readCount()
		entries, explain, err := filesSource(ctx, c.Objects, c.batch, c.content, src.Files)
		if err != nil {
			return made{}, err
		}
		step.done(Event{Text: fmt.Sprintf("%d files to %s", len(entries), src.Files.To), Count: len(entries), Reused: c.cache.readCount() == reads})
		return made{entries: entries, comment: "files to " + src.Files.To, explain: explain}, nil
	case src.Debian != nil:
		return c.debianSource(ctx, src.Debian)
	case src.Image != nil:
		return c.imageSource(ctx, src.Image)
	case src.Docker != nil:
		return c.dockerSource(ctx, src.Docker)
	default:
		return made{}, fmt.Errorf("a source of no kind")
	}
}

// at gives a fault its place, unless it has one.
func at(err error, where string) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Where == "" && where != "" {
		c := *f
		return c.At(where)
	}
	return err
}

func (b *Builder) arch() string {
	if b.Arch != "" {
		return b.Arch
	}
	return runtime.GOARCH
}

func (b *Builder) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now()
}

func (b *Builder) tell(e Event) {
	if b.Progress != nil {
		b.Progress(e)
	}
}

// running is a step that was begun.
type running struct {
	c     *component
	step  Step
	begun time.Time
}

func (c *component) step(s Step) running {
	c.tell(Event{Component: c.Name, Step: s})
	return running{c, s, time.Now()}
}

func (r running) done(e Event) {
	e.Component, e.Step, e.Done, e.Took = r.c.Name, r.step, true, time.Since(r.begun)
	r.c.tell(e)
}
