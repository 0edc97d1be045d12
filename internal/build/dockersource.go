package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
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
	Reproducible bool              `yaml:"reproducible"` // shown to be; nothing shows it yet
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
	inputs, err := b.dockerInputs(ctx, component, src)
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
		if lock.Tool, lock.Manifest, err = b.buildDockerfile(ctx, component, src, ""); err != nil {
			return err
		}
	}
	entry.Dockerfiles = append(entry.Dockerfiles, lock)
	return nil
}

// dockerSource makes the tree of a dockerfile source. The image is built if it is not on
// hand, and then has to be the one that is locked.
func (c *component) dockerSource(ctx context.Context, src *definition.DockerSource) (made, error) {
	lock, ok := c.Lock.dockerfile(c.Name, src, c.arch())
	if !ok {
		return made{}, notLocked("the Dockerfile " + path.Join(src.Context, src.File))
	}
	if !c.Objects.Has(lock.Manifest) {
		if _, _, err := c.buildDockerfile(ctx, c.Name, src, lock.Manifest); err != nil {
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
	origin := ledger.Origin{
		Kind: ledger.KindImage, Name: path.Join(src.Context, src.File), Arch: c.arch(), Digest: lock.Manifest, Size: img.Size,
		Text: "built by " + lock.Tool + " from inputs " + lock.Inputs.String() + "; not shown to be reproducible",
	}
	return made{entries: img.Tree.Entries, comment: text, image: &img.Config, explain: members(origin, img.Tree)}, nil
}

// dockerInputs is a digest of all that a Dockerfile's build may depend on here: the
// settings, and every file of the context but ashlar.lock and what is in .git.
func (b *Builder) dockerInputs(ctx context.Context, component string, src *definition.DockerSource) (digest.Digest, error) {
	dir, err := filepath.Abs(b.Definition)
	if err != nil {
		return "", err
	}
	cache := openStatCache(b.cachePath("dockerfile", dir, component), b.now)
	content, err := openContent(dir, cache)
	if err != nil {
		return "", err
	}
	defer content.Close()
	w := &walker{content: content, spare: make(chan struct{}, runtime.GOMAXPROCS(0)), excluded: func(name string) bool { return name == LockName }}
	files, err := w.walk(ctx, src.Context)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "dockerfile 1\n%q %q %s\n", src.File, src.Target, b.arch())
	for _, name := range slices.Sorted(maps.Keys(src.Args)) {
		fmt.Fprintf(h, "arg %q %q\n", name, src.Args[name])
	}
	there := false
	for _, f := range files {
		there = there || f.name == path.Join(src.Context, src.File)
		if err := hashInput(h, content, f); err != nil {
			return "", err
		}
	}
	if !there {
		return "", fault.New(fault.NotFound, "there is no file %s", path.Join(src.Context, src.File)).Mend("correct  file:  and  context:")
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))), cache.save()
}

func hashInput(h io.Writer, c *content, f found) error {
	switch {
	case f.mode.IsRegular():
		d, err := fileDigest(filepath.Join(c.dir, f.name), c.cache)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "file %q %v %s\n", f.name, f.mode&0o100 != 0, d)
	case f.mode&fs.ModeSymlink != 0:
		target, err := c.root.Readlink(f.name)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "link %q %q\n", f.name, target)
	}
	return nil
}

// buildDockerfile has the image built by a program that is there and takes it into the
// object store. With want, another image is an error and not taken.
func (b *Builder) buildDockerfile(ctx context.Context, component string, src *definition.DockerSource, want digest.Digest) (tool string, manifest digest.Digest, err error) {
	t, err := findImageTool()
	if err != nil {
		return "", "", err
	}
	tmp, err := os.MkdirTemp(b.Dir, "dockerfile-")
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	dir, err := filepath.Abs(filepath.Join(b.Definition, src.Context))
	if err != nil {
		return "", "", err
	}
	begun := time.Now()
	b.tell(Event{Component: component, Step: StepImage, Text: t.name + " builds " + path.Join(src.Context, src.File)})
	q := oci.Request{Path: filepath.Join(tmp, "image.tar"), Arch: b.arch()}
	if err := t.build(ctx, imageJob{dir: dir, src: src, arch: b.arch(), tmp: tmp, out: q.Path}); err != nil {
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

// imageTool is a program that builds Dockerfiles.
type imageTool struct {
	name string
	path string
}

// ImageTools are the programs that build Dockerfiles; they are looked for in this order.
var ImageTools = []string{"podman", "buildah", "docker", "buildctl"}

func findImageTool() (imageTool, error) {
	for _, name := range ImageTools {
		if p, err := exec.LookPath(name); err == nil {
			return imageTool{name, p}, nil
		}
	}
	return imageTool{}, fault.New(fault.Unavailable, "no program is installed that builds Dockerfiles").
		Detail("looked for: " + strings.Join(ImageTools, ", ")).
		Mend("apt-get install podman , or build the image elsewhere and write  image: {path: image.tar}")
}

// version is what the program calls itself, in one line.
func (t imageTool) version(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, t.path, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	line = strings.Map(func(r rune) rune {
		if strings.ContainsRune("+ .:_-", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, line)
	if line = strings.TrimSpace(line); err != nil || !toolchainName.MatchString(line) {
		return t.name
	}
	return line[:min(len(line), maxToolchain)]
}

// imageJob is one image to be built.
type imageJob struct {
	dir  string // the context, absolute
	src  *definition.DockerSource
	arch string
	tmp  string // for files of the job
	out  string // where the archive goes
}

func (t imageTool) build(ctx context.Context, j imageJob) error {
	if t.name == "buildctl" {
		return t.run(ctx, j.buildctl()...)
	}
	id := filepath.Join(j.tmp, "id")
	args := []string{"build", "--quiet", "--iidfile", id, "--file", filepath.Join(j.dir, j.src.File), "--platform", "linux/" + j.arch}
	if t.name != "docker" {
		args = append(args, "--timestamp", "0", "--layers")
		if j.arch != runtime.GOARCH { // buildah takes layers of another architecture from its cache
			args = append(args, "--no-cache")
		}
	}
	if j.src.Target != "" {
		args = append(args, "--target", j.src.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(j.src.Args)) {
		args = append(args, "--build-arg", name+"="+j.src.Args[name])
	}
	if err := t.run(ctx, append(args, j.dir)...); err != nil {
		return err
	}
	built, err := os.ReadFile(id)
	if err != nil {
		return fmt.Errorf("%s told no image: %w", t.name, err)
	}
	switch image := strings.TrimSpace(string(built)); t.name {
	case "podman":
		return t.run(ctx, "save", "--quiet", "--format", "oci-archive", "--output", j.out, image)
	case "buildah":
		return t.run(ctx, "push", "--quiet", image, "oci-archive:"+j.out)
	default:
		return t.run(ctx, "save", "--output", j.out, image)
	}
}

// buildctl are the arguments for BuildKit's own client.
func (j imageJob) buildctl() []string {
	args := []string{
		"build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", "context=" + j.dir, "--local", "dockerfile=" + j.dir,
		"--opt", "filename=" + j.src.File, "--opt", "platform=linux/" + j.arch, "--output", "type=oci,dest=" + j.out,
	}
	if j.src.Target != "" {
		args = append(args, "--opt", "target="+j.src.Target)
	}
	for _, name := range slices.Sorted(maps.Keys(j.src.Args)) {
		args = append(args, "--opt", "build-arg:"+name+"="+j.src.Args[name])
	}
	return args
}

// lastLines is how much of a failed build's output is shown.
const lastLines = 15

func (t imageTool) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, t.path, args...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fault.New(fault.Invalid, "%s %s failed: %w", t.name, args[0], err).
		Detail(lines[max(0, len(lines)-lastLines):]...).
		Mend("correct the Dockerfile; by hand:  %s build %s", t.name, args[len(args)-1])
}
