package build

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/oci"
)

// ImageLock pins the image of an image source.
type ImageLock struct {
	Path     string        `yaml:"path"`
	Tag      string        `yaml:"tag,omitempty"`    // as asked for
	Digest   digest.Digest `yaml:"digest,omitempty"` // as asked for
	Arch     string        `yaml:"arch"`
	Manifest digest.Digest `yaml:"manifest"`
}

// InRegistry says that the image is in a registry, not in a file.
func (l ImageLock) InRegistry() bool { return strings.HasPrefix(l.Path, inRegistry) }

func (l ImageLock) check() error {
	if l.Path == "" || l.Arch == "" || l.Manifest.Validate() != nil || l.Manifest.Algorithm() != digest.SHA256 {
		return fault.New(fault.Invalid, "an image entry has path %q, arch %q and manifest %q", l.Path, l.Arch, l.Manifest)
	}
	return nil
}

// image gives the locked manifest of an image source, "" if there is none.
func (l *LockFile) image(component string, src *definition.ImageSource, arch string) digest.Digest {
	if l == nil {
		return ""
	}
	for _, i := range l.Components[component].Images {
		if i.Path == src.Path && i.Tag == src.Tag && i.Digest.String() == src.Digest && i.Arch == arch {
			return i.Manifest
		}
	}
	return ""
}

// imageRequest is what package oci is asked for.
func (b *Builder) imageRequest(src *definition.ImageSource) oci.Request {
	path := src.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(b.Definition, path)
	}
	return oci.Request{Path: path, Tag: src.Tag, Digest: digest.Digest(src.Digest), Arch: b.arch()}
}

func (b *Builder) lockImage(ctx context.Context, old *LockFile, entry *ComponentLock, component string, src *definition.ImageSource) error {
	manifest := old.image(component, src, b.arch())
	if manifest == "" || b.Update {
		if b.Locked {
			return notLocked("the image " + src.Path)
		}
		var err error
		if manifest, err = b.findImage(ctx, src); err != nil {
			return err
		}
		b.tell(Event{Component: component, Step: StepLock, Done: true, Text: src.Path + ": " + manifest.String()})
	}
	entry.Images = append(entry.Images, ImageLock{Path: src.Path, Tag: src.Tag, Digest: digest.Digest(src.Digest), Arch: b.arch(), Manifest: manifest})
	return nil
}

// imageSource makes the tree of a component's image source.
func (c *component) imageSource(ctx context.Context, src *definition.ImageSource) (made, error) {
	manifest := c.Lock.image(c.Name, src, c.arch())
	if manifest == "" {
		return made{}, notLocked("the image " + src.Path)
	}
	step := c.step(StepUnpack)
	q := c.imageRequest(src)
	q.Digest = manifest
	if err := c.havePulled(ctx, src, manifest); err != nil {
		return made{}, err
	}
	img, err := oci.Unpack(ctx, c.Objects, q)
	if err != nil {
		return made{}, err
	}
	text := "image " + manifest.String()
	step.done(Event{Text: text, Count: len(img.Layers), Reused: img.Reused})
	origin := ledger.Origin{Kind: ledger.KindImage, Name: src.Path, Version: src.Tag, Arch: c.arch(), Digest: manifest, Size: img.Size}
	return made{entries: img.Tree.Entries, comment: text, image: &img.Config, explain: members(origin, img.Tree)}, nil
}

// members explains every entry of an image by the image, which is opaque, under the
// name that it has there.
func members(o ledger.Origin, t image.Tree) explainer {
	return func(w *ledger.Writer) func(int) (ledger.Line, error) {
		n := w.Origin(o)
		return func(i int) (ledger.Line, error) { return ledger.Line{Origin: n, Member: t.Entries[i].Path}, nil }
	}
}

// imageConfig is what the images of a component say together; later ones win.
func imageConfig(sources []made) *ocispec.ImageConfig {
	for _, s := range slices.Backward(sources) {
		if s.image != nil {
			return s.image
		}
	}
	return nil
}

// withImage gives settings in which what is silent is what the image says.
func withImage(s definition.Settings, img *ocispec.ImageConfig) (definition.Settings, error) {
	if img == nil {
		img = &ocispec.ImageConfig{}
	}
	if len(s.Command) == 0 {
		s.Command = append(slices.Clone(img.Entrypoint), img.Cmd...)
	}
	if s.WorkDir == "" {
		s.WorkDir = absoluteDir(img.WorkingDir)
	}
	if s.User == "" {
		s.User = img.User
	}
	var err error
	if s.Stop.Signal == "" {
		if s.Stop.Signal, err = stopSignal(img.StopSignal); err != nil {
			return s, err
		}
	}
	env := map[string]string{}
	for _, v := range img.Env {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	maps.Copy(env, s.Env)
	if len(env) > 0 {
		s.Env = env
	}
	return s, nil
}

func absoluteDir(dir string) string {
	return filepath.Join("/", dir)
}

// stopSignal gives the name of an image's stop signal, which may be a number.
func stopSignal(s string) (string, error) {
	if s == "" {
		return "SIGTERM", nil
	}
	name := strings.ToUpper(s)
	if n, err := strconv.Atoi(s); err == nil {
		name = unix.SignalName(unix.Signal(n))
	} else if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if unix.SignalNum(name) == 0 {
		return "", fault.New(fault.Invalid, "the image's stop signal %.40q is not known", s).Mend("write  stop: {signal: SIGTERM}  under  run:")
	}
	return name, nil
}

// imageEnv is the environment in an artifact's own configuration: what the image has,
// and a PATH. What ashlar.yaml says belongs to the release.
func imageEnv(img *ocispec.ImageConfig) []string {
	env := map[string]string{"PATH": defaultPath}
	if img != nil {
		for _, v := range img.Env {
			name, value, _ := strings.Cut(v, "=")
			env[name] = value
		}
	}
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, fmt.Sprintf("%s=%s", name, env[name]))
	}
	return out
}
