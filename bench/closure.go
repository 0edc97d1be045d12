package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ashlar-infra/ashlar/internal/object"
)

const closureDefinition = `app: closure
components:
  redis:
    build: [{debian: {suite: bookworm, packages: [redis-server]}}]
    run: {command: [/usr/bin/redis-server]}
environments:
  production: {}
`

// apt in the container finds nothing but the packages that Ashlar found.
const closureContainerfile = `FROM localhost/base
RUN rm -f /etc/apt/sources.list.d/* && echo "deb [trusted=yes] copy:/mirror ./" > /etc/apt/sources.list && apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install redis-server
`

// way is one way to make a tree of redis-server and what it depends on.
type way struct {
	name   string
	target string
	run    func(round int) *exec.Cmd
	took   []float64 // seconds
	cpu    []float64 // seconds of processor time
}

// closures measures the build of a Debian closure without download, and prints it. All
// ways have the same packages, from this disk.
func closures(ctx context.Context, o options, dir string, r *report, w io.Writer, say func(string, ...any)) error {
	c := closureBench{ctx: ctx, o: o, dir: dir, say: say}
	if err := c.prepare(); err != nil {
		return err
	}
	defer func() { _ = exec.Command("umount", "-l", c.path("storage/graph/overlay")).Run() }() // buildah leaves it mounted
	ways := c.ways()
	before := first("/proc/loadavg")
	for round := range o.n {
		for i := range ways { // another one begins each round
			if err := ways[(i+round)%len(ways)].measure(round); err != nil {
				return err
			}
		}
		say("round %d of %d", round+1, o.n)
	}
	r.head(w)
	fmt.Fprintf(w, "load average before %s; after %s\n\n", before, first("/proc/loadavg"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "redis-server with its closure, no download (%d rounds)\tmin\tmedian\tmax\tprocessor time\ttarget\n", o.n)
	for _, x := range ways {
		took, cpu := summarize(x.name, "s", x.took), summarize("", "s", x.cpu)
		fmt.Fprintf(t, "%s\t%.2f s\t%.2f s\t%.2f s\t%.2f s\t%s\n", x.name, took.Min, took.Median, took.Max, cpu.Median, x.target)
	}
	return t.Flush()
}

func (x *way) measure(round int) error {
	cmd := x.run(round)
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", x.name, err, out)
	}
	x.took = append(x.took, time.Since(begun).Seconds())
	x.cpu = append(x.cpu, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	return nil
}

// closureBench is what the ways work on.
type closureBench struct {
	ctx context.Context
	o   options
	dir string
	say func(string, ...any)
}

func (c closureBench) path(name string) string { return filepath.Join(c.dir, name) }

func (c closureBench) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.ctx, name, args...)
	cmd.Dir = c.path("source")
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+c.path("storage.conf"), "BUILDAH_ISOLATION=chroot")
	return cmd
}

func (c closureBench) must(name string, args ...string) error {
	if out, err := c.command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// ways are Ashlar into a state directory that has the packages and nothing made of them,
// again with nothing changed, and its peers where they are installed.
func (c closureBench) ways() []*way {
	state := func(round int) string { return c.path(fmt.Sprintf("state-%d", round)) }
	ashlar := func(round int) *exec.Cmd { return c.command(c.o.ashlar, "build", "--locked", "--dir", state(round)) }
	all := []*way{
		{name: "ashlar build, cold", target: "3 s", run: ashlar},
		{name: "ashlar build, nothing changed", target: "0.3 s", run: func(int) *exec.Cmd { return ashlar(-1) }},
	}
	if installed("mmdebstrap") {
		all = append(all, &way{name: "mmdebstrap --variant=extract", run: func(round int) *exec.Cmd {
			return c.command("mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--include=redis-server", "bookworm",
				c.path(fmt.Sprintf("out-%d.tar", round)), "deb [trusted=yes] copy:"+c.path("mirror")+" ./")
		}})
	}
	if installed("mmdebstrap", "buildah") {
		all = append(all, &way{name: "buildah, apt-get install on a base image", run: func(int) *exec.Cmd {
			return c.command("buildah", "build", "--no-cache", "--layers=false", "--volume", c.path("mirror")+":/mirror:ro", "--tag", "redis", ".")
		}})
	}
	return all
}

func installed(names ...string) bool {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return false
		}
	}
	return true
}

// prepare fetches the packages once and makes of them what each way needs.
func (c closureBench) prepare() error {
	if !installed("dpkg-scanpackages") {
		return errors.New("install dpkg-dev, and mmdebstrap and buildah to measure them too")
	}
	c.say("fetching redis-server and its closure")
	storage := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", c.path("storage/graph"), c.path("storage/run"))
	err := errors.Join(
		os.MkdirAll(c.path("source"), 0o755),
		os.WriteFile(c.path("source/ashlar.yaml"), []byte(closureDefinition), 0o644),
		os.WriteFile(c.path("source/Containerfile"), []byte(closureContainerfile), 0o644),
		os.WriteFile(c.path("storage.conf"), []byte(storage), 0o644),
	)
	if err == nil {
		err = c.must(c.o.ashlar, "build", "--dir", c.path("state--1"))
	}
	if err == nil {
		err = c.copies()
	}
	if err != nil || !installed("mmdebstrap", "buildah") {
		return err
	}
	c.say("making a base image for buildah")
	if err := c.must("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "bookworm", c.path("base.tar")); err != nil {
		return err
	}
	out, err := c.command("buildah", "from", "scratch").Output()
	name := strings.TrimSpace(string(out))
	if err != nil {
		return err
	}
	if err := c.must("buildah", "add", "--quiet", name, c.path("base.tar"), "/"); err != nil {
		return err
	}
	return c.must("buildah", "commit", "--quiet", "--rm", name, "localhost/base")
}

// copies makes a state directory for each round that has the packages alone, and the
// same packages as an archive for apt. Nothing is removed between rounds: ext4 searches
// long for an inode where thousands were freed within the last minutes.
func (c closureBench) copies() error {
	from, err := object.Open(c.path("state--1"))
	if err != nil {
		return err
	}
	defer from.Close()
	inputs, err := from.Refs("deb-input")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.path("mirror"), 0o755); err != nil {
		return err
	}
	for round := range c.o.n {
		to, err := object.Open(c.path(fmt.Sprintf("state-%d", round)))
		if err != nil {
			return err
		}
		for name, d := range inputs {
			b, err := from.ReadAll(d, 1<<30)
			if err != nil {
				return err
			}
			if _, err := to.PutBytes(b); err != nil {
				return err
			}
			if err := to.SetRef("deb-input", name, d); err != nil {
				return err
			}
			if round == 0 && strings.HasPrefix(string(b), "!<arch>\n") {
				if err := os.WriteFile(c.path("mirror/"+name[:16]+".deb"), b, 0o644); err != nil {
					return err
				}
			}
		}
		if err := to.Close(); err != nil {
			return err
		}
	}
	cmd := c.command("dpkg-scanpackages", ".")
	cmd.Dir = c.path("mirror")
	packages, err := cmd.Output()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(c.path("mirror/Packages"), packages, 0o644),
		os.WriteFile(c.path("mirror/Release"), []byte("Suite: bookworm\nCodename: bookworm\n"), 0o644),
	)
}
