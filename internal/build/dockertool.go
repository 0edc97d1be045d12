package build

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
)

// imageTool is a program that builds Dockerfiles.
type imageTool struct {
	name string
	path string
}

// ImageTools are the programs that build Dockerfiles; they are looked for in this order.
var ImageTools = []string{"podman", "buildah", "docker", "buildctl"}

func findImageTool(ctx context.Context) (imageTool, error) {
	var why []string
	for _, name := range ImageTools {
		p, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		t := imageTool{name, p}
		if err = t.answers(ctx); err == nil {
			return t, nil
		}
		why = append(why, err.Error())
	}
	if ctx.Err() != nil {
		return imageTool{}, ctx.Err()
	}
	what := "no program is installed that builds Dockerfiles"
	if len(why) > 0 {
		what = "no program builds Dockerfiles here"
	}
	return imageTool{}, fault.New(fault.Unavailable, "%s", what).
		Detail("looked for: " + strings.Join(ImageTools, ", ")).Detail(why...).
		Mend("apt-get install buildah  (or podman, or docker.io; for BuildKit put buildctl into PATH and start buildkitd), or build the image elsewhere and write  image: {path: image.tar}")
}

// answers says why a program of which another one does the work cannot build.
func (t imageTool) answers(ctx context.Context) error {
	var args []string
	switch t.name {
	case "docker":
		args = []string{"version", "--format", "{{.Server.Version}}"}
	case "buildctl":
		args = []string{"debug", "workers"}
	default:
		return nil
	}
	out, err := exec.CommandContext(ctx, t.path, args...).CombinedOutput()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s does not answer: %s", t.name, lines[len(lines)-1])
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
	anew bool   // without what the program remembers of builds before
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
	}
	if j.anew || t.name != "docker" && j.arch != runtime.GOARCH { // buildah takes layers of another architecture from its cache
		args = append(args, "--no-cache")
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
		"--opt", "filename=" + j.src.File, "--opt", "platform=linux/" + j.arch,
		"--opt", "build-arg:SOURCE_DATE_EPOCH=0", "--output", "type=oci,rewrite-timestamp=true,dest=" + j.out,
	}
	if j.anew {
		args = append(args, "--no-cache")
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
	return fault.New(fault.Invalid, "%s %s failed: %w", t.name, args[0], err).Mend("correct the Dockerfile").
		Detail(lines[max(0, len(lines)-lastLines):]...)
}
