package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/oci"
)

// DockerLock pins what the build of a Dockerfile gave. What RUN does is not known here,
// so the same inputs may give another image elsewhere: the result is what is locked, and
// the inputs say when it is made anew.
type DockerLock struct {
	Context      string            `yaml:"context"` // as asked for, like File, Target and Args
	File         string            `yaml:"file"`
	Target       string            `yaml:"target,omitempty"`
	Args         map[string]string `yaml:"args,omitempty"`
	Arch         string            `yaml:"arch"`
	Inputs       digest.Digest     `yaml:"inputs"` // of all that is in the context, and the settings
	Tool         string            `yaml:"tool"`   // e.g. podman version 4.3.1
	Manifest     digest.Digest     `yaml:"manifest"`
	Reproducible bool              `yaml:"reproducible"` // `ashlar build --check` gave the same, and nothing else since
}

func (l DockerLock) check() error {
	for _, d := range []digest.Digest{l.Inputs, l.Manifest} {
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return fault.New(fault.Invalid, "a dockerfile entry names %.80q, which is not a SHA-256 digest", d)
		}
	}
	if l.Context == "" || l.File == "" || l.Arch == "" || len(l.Tool) > maxToolchain || !toolchainName.MatchString(l.Tool) {
		return fault.New(fault.Invalid, "a dockerfile entry has context %q, file %q, arch %q and tool %.80q", l.Context, l.File, l.Arch, l.Tool)
	}
	return nil
}

// dockerfile gives the entry of a dockerfile source.
func (l *LockFile) dockerfile(component string, src *definition.DockerSource, arch string) (DockerLock, bool) {
	if l == nil {
		return DockerLock{}, false
	}
	for _, d := range l.Components[component].Dockerfiles {
		if d.Context == src.Context && d.File == src.File && d.Target == src.Target && maps.Equal(d.Args, src.Args) && d.Arch == arch {
			return d, true
		}
	}
	return DockerLock{}, false
}

func (b *Builder) lockDockerfile(ctx context.Context, old *LockFile, entry *ComponentLock, component string, src *definition.DockerSource) error {
	seen, err := b.dockerContext(ctx, component, src)
	if err != nil {
		return err
	}
	defer seen.close()
	inputs, err := seen.digest()
	if err != nil {
		return err
	}
	lock, ok := old.dockerfile(component, src, b.arch())
	if !ok || b.Update || lock.Inputs != inputs {
		if b.Locked {
			return notLocked("the inputs of " + path.Join(src.Context, src.File) + " as they are")
		}
		lock = DockerLock{Context: src.Context, File: src.File, Target: src.Target, Args: src.Args, Arch: b.arch(), Inputs: inputs}
		if len(lock.Args) == 0 {
			lock.Args = nil
		}
		if lock.Tool, lock.Manifest, err = b.buildDockerfile(ctx, component, seen, ""); err != nil {
			return err
		}
	}
	entry.Dockerfiles = append(entry.Dockerfiles, lock)
	return nil
}

// What ledger, bills of materials and provenance say of a Dockerfile's image.
const (
	notReproducible = "not shown to be reproducible"
	isReproducible  = "shown to be reproducible: ashlar build --check got the same again"
)

// ShowReproducible notes what building a component again has shown of its Dockerfiles,
// and says whether that was not known.
func (l *LockFile) ShowReproducible(component string, reproducible bool) (news bool) {
	for i := range l.Components[component].Dockerfiles { // the slice is the map's too
		d := &l.Components[component].Dockerfiles[i]
		news = news || d.Reproducible != reproducible
		d.Reproducible = reproducible
	}
	return news
}

// dockerSource makes the tree of a dockerfile source. The image is built if it is not on
// hand, and then has to be the one that is locked.
func (c *component) dockerSource(ctx context.Context, src *definition.DockerSource) (made, error) {
	lock, ok := c.Lock.dockerfile(c.Name, src, c.arch())
	if !ok {
		return made{}, notLocked("the Dockerfile " + path.Join(src.Context, src.File))
	}
	if c.Anew || !c.Objects.Has(lock.Manifest) {
		if err := c.dockerAgain(ctx, src, &lock); err != nil {
			return made{}, err
		}
	}
	step := c.step(StepUnpack)
	img, err := oci.Unpack(ctx, c.Objects, oci.Request{Digest: lock.Manifest, Arch: c.arch()})
	if err != nil {
		return made{}, err
	}
	text := fmt.Sprintf("%s, image %s", path.Join(src.Context, src.File), lock.Manifest)
	step.done(Event{Text: text, Count: len(img.Layers), Reused: img.Reused})
	shown := notReproducible
	if lock.Reproducible {
		shown = isReproducible
	}
	origin := ledger.Origin{
		Kind: ledger.KindImage, Name: path.Join(src.Context, src.File), Arch: c.arch(), Digest: lock.Manifest, Size: img.Size,
		Text: "built by " + lock.Tool + " from inputs " + lock.Inputs.String() + "; " + shown,
	}
	return made{entries: img.Tree.Entries, comment: text, image: &img.Config, explain: members(origin, img.Tree)}, nil
}

// dockerAgain builds an image that is locked. It has to be that one, but for a build that
// is to show whether it is.
func (c *component) dockerAgain(ctx context.Context, src *definition.DockerSource, lock *DockerLock) error {
	seen, err := c.dockerContext(ctx, c.Name, src)
	if err != nil {
		return err
	}
	defer seen.close()
	want := lock.Manifest
	if c.Anew {
		want = ""
	}
	_, lock.Manifest, err = c.buildDockerfile(ctx, c.Name, seen, want)
	return err
}

// buildDockerfile has the image built by a program that is there and takes it into the
// object store. With want, another image is an error and not taken.
func (b *Builder) buildDockerfile(ctx context.Context, component string, seen *dockerContext, want digest.Digest) (tool string, manifest digest.Digest, err error) {
	t, err := findImageTool(ctx)
	if err != nil {
		return "", "", err
	}
	tmp, err := os.MkdirTemp(b.Dir, "dockerfile-")
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	src, dir := seen.src, filepath.Join(tmp, "context")
	if err := seen.copy(dir); err != nil {
		return "", "", err
	}
	begun := time.Now()
	b.tell(Event{Component: component, Step: StepImage, Text: t.name + " builds " + path.Join(src.Context, src.File)})
	q := oci.Request{Path: filepath.Join(tmp, "image.tar"), Arch: b.arch()}
	if err := t.build(ctx, imageJob{dir: dir, src: src, arch: b.arch(), anew: b.Anew, tmp: tmp, out: q.Path}); err != nil {
		return "", "", err
	}
	if q.Digest, err = oci.Find(q); err != nil {
		return "", "", err
	}
	if want != "" && want != q.Digest {
		return "", "", fault.New(fault.Conflict, "the image of %s is not the one that ashlar.lock names: its build is not reproducible", path.Join(src.Context, src.File)).
			Detail("locked: "+want.String(), "built:  "+q.Digest.String()).
			Mend("take the image from where it was built, as  image: {path: …}, or accept the new one with  ashlar build --update")
	}
	if _, err := oci.Unpack(ctx, b.Objects, q); err != nil {
		return "", "", err
	}
	b.tell(Event{Component: component, Step: StepImage, Done: true, Took: time.Since(begun), Text: path.Join(src.Context, src.File) + ": " + q.Digest.String()})
	return t.version(ctx), q.Digest, nil
}
