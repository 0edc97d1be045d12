package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/module"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/oci"
	"github.com/ashlar-infra/ashlar/internal/rebuild"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// exportInputs writes everything that building the release anew needs.
func exportInputs(ctx context.Context, q cli.ExportInputsRequest) (err error) {
	objects, err := object.Open(q.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	unlock, err := objects.Share(ctx) // what is written out must not be collected meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := filepath.Abs(filepath.Dir(q.File))
	if err != nil {
		return err
	}
	x := exporting{ctx: ctx, objects: objects, dir: dir}
	in := rebuild.Inputs{App: q.Release.App, Release: q.Digest, Artifacts: map[string]digest.Digest{}}
	for _, env := range q.Release.Environments {
		for name, c := range env.Components {
			in.Artifacts[name] = c.Spec.Artifact
			if err := x.outside(c); err != nil {
				return err
			}
		}
	}
	base := x.base()
	if in.Definition, err = filepath.Rel(base, filepath.Join(dir, filepath.Base(q.File))); err != nil {
		return err
	}
	in.Definition = filepath.ToSlash(in.Definition)
	files, err := rebuild.Tree(dir, path.Join(rebuild.Source, path.Dir(in.Definition)), q.Dir)
	if err != nil {
		return err
	}
	for _, f := range x.above {
		rel, err := filepath.Rel(base, f)
		if err != nil {
			return err
		}
		files = append(files, rebuild.File{Name: path.Join(rebuild.Source, filepath.ToSlash(rel)), Path: f})
	}
	locked, err := x.locked()
	if err != nil {
		return err
	}
	modules, err := x.modules()
	if err != nil {
		return err
	}
	return writeInputs(q.To, in, append(append(files, locked...), modules...))
}

func writeInputs(to string, in rebuild.Inputs, files []rebuild.File) (err error) {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fault.New(fault.Unavailable, "the inputs cannot be written: %w", err).Mend("name a new file:  --to FILE")
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err = errors.Join(rebuild.Write(w, in, files), w.Flush(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

type exporting struct {
	ctx     context.Context
	objects *object.Store
	dir     string   // of the definition
	above   []string // sources that are not below it
}

// outside finds the sources of a component's programs that are not below the
// definition: the ledger names them.
func (x *exporting) outside(c release.Component) error {
	if c.Ledger == "" {
		return fault.New(fault.NotFound, "the release has no ledger: it was made by an older version").Mend("build and deploy it again")
	}
	book, err := ledger.Read(x.objects, c.Ledger)
	if err != nil {
		return err
	}
	for _, o := range book.Inputs() {
		if o.Go == nil {
			continue
		}
		for _, f := range o.Go.Files {
			if strings.HasPrefix(f.Path, "../") {
				x.above = append(x.above, filepath.Join(x.dir, filepath.FromSlash(f.Path)))
			}
		}
	}
	return nil
}

// base is the directory that all sources are below.
func (x *exporting) base() string {
	base := x.dir
	for _, f := range x.above {
		for rel, err := filepath.Rel(base, f); err == nil && strings.HasPrefix(rel, "../"); rel, err = filepath.Rel(base, f) {
			base = filepath.Dir(base)
		}
	}
	return base
}

// locked are the objects that the lock names.
func (x *exporting) locked() ([]rebuild.File, error) {
	lock, err := build.ReadLockFile(x.dir)
	if err != nil {
		return nil, err
	}
	var out []rebuild.File
	add := func(d digest.Digest) error {
		file, err := x.objects.File(d)
		out = append(out, rebuild.File{Name: rebuild.Objects + "/" + d.Encoded(), Path: file})
		return err
	}
	for _, c := range lock.Components {
		for _, l := range c.Debian {
			for _, d := range l.Lock.Inputs() {
				if !x.objects.Has(d) {
					continue // an index that nobody needed is not there; a package that is missing fails the rebuild
				}
				if err := add(d); err != nil {
					return nil, err
				}
			}
		}
		for _, manifest := range carried(c) {
			blobs, err := oci.Blobs(x.objects, manifest)
			if err != nil {
				return nil, err
			}
			for _, d := range blobs {
				if err := add(d); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}

// carried are the images of a component that are not in the definition's directory: of
// registries, of other places, and those that a Dockerfile gave.
func carried(c build.ComponentLock) []digest.Digest {
	var out []digest.Digest
	for _, i := range c.Images {
		if i.InRegistry() || !filepath.IsLocal(i.Path) {
			out = append(out, i.Manifest)
		}
	}
	for _, d := range c.Dockerfiles {
		out = append(out, d.Manifest)
	}
	return out
}

// modules are the files of the module cache that go.sum names, as a proxy has them.
func (x *exporting) modules() ([]rebuild.File, error) {
	at := x.dir
	sums, err := os.ReadFile(filepath.Join(at, "go.sum"))
	for errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at) {
		if _, here := os.Stat(filepath.Join(at, "go.mod")); here == nil {
			return nil, nil // a module without dependencies
		}
		at = filepath.Dir(at)
		sums, err = os.ReadFile(filepath.Join(at, "go.sum"))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(x.ctx, "go", "env", "GOMODCACHE").Output()
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the Go command cannot be asked for its module cache: %w", err)
	}
	cache := filepath.Join(strings.TrimSpace(string(out)), "cache", "download")
	var files []rebuild.File
	for line := range strings.Lines(string(sums)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		version, mod := strings.CutSuffix(fields[1], "/go.mod")
		name, err := module.EscapePath(fields[0])
		escaped, err2 := module.EscapeVersion(version)
		if err != nil || err2 != nil {
			continue
		}
		suffixes := []string{".info", ".mod", ".zip"}
		if mod {
			suffixes = []string{".info", ".mod"}
		}
		for _, s := range suffixes {
			rel := path.Join(name, "@v", escaped+s)
			if _, err := os.Stat(filepath.Join(cache, rel)); err == nil {
				files = append(files, rebuild.File{Name: path.Join(rebuild.Modules, rel), Path: filepath.Join(cache, rel)})
			}
		}
	}
	return files, nil
}

// rebuildInputs builds what a tar of inputs is about in a directory of its own, without
// a network and with nothing but the tar, the Go toolchain and this program.
func rebuildInputs(ctx context.Context, q cli.RebuildRequest) (out cli.Rebuilt, err error) {
	dir, err := os.MkdirTemp("", "ashlar-rebuild-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	f, err := os.Open(q.File)
	if err != nil {
		return out, fault.New(fault.NotFound, "the inputs cannot be read: %w", err).Mend("write them where the release was built:  ashlar export RELEASE --to FILE")
	}
	defer f.Close() //nolint:errcheck // read only
	hash := digest.SHA256.Digester()
	in, err := rebuild.Unpack(io.TeeReader(bufio.NewReaderSize(f, 1<<20), hash.Hash()), dir)
	if err != nil {
		return out, err
	}
	if _, err := io.Copy(hash.Hash(), f); err != nil {
		return out, err
	}
	if err := takeObjects(dir); err != nil {
		return out, err
	}
	got, err := buildAlone(ctx, dir, in, q.Progress)
	if err != nil {
		return out, err
	}
	out = cli.Rebuilt{App: in.App, Release: in.Release, Inputs: hash.Digest()}
	for name, want := range in.Artifacts {
		out.Components = append(out.Components, cli.RebuiltComponent{Name: name, Want: want, Got: got[name]})
	}
	return out, nil
}

// takeObjects puts the objects into a store of their own, each compared with its name.
func takeObjects(dir string) (err error) {
	objects, err := object.Open(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	names, err := os.ReadDir(filepath.Join(dir, rebuild.Objects))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	batch := objects.NewBatch()
	defer batch.Discard()
	for _, n := range names {
		f, err := os.Open(filepath.Join(dir, rebuild.Objects, n.Name()))
		if err != nil {
			return err
		}
		_, err = batch.PutVerified(f, digest.NewDigestFromEncoded(digest.SHA256, n.Name()), -1)
		if err := errors.Join(err, f.Close()); err != nil {
			return fault.Of(err).At(path.Join(rebuild.Objects, n.Name()))
		}
	}
	return batch.Commit()
}

// buildAlone runs `ashlar build` in a network namespace that has no interface.
func buildAlone(ctx context.Context, dir string, in rebuild.Inputs, progress io.Writer) (map[string]digest.Digest, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, rebuild.Source, filepath.FromSlash(in.Definition))
	cmd := exec.CommandContext(ctx, self, "build", "--locked", "--untested", "--output", "json", "--dir", filepath.Join(dir, "state"), "--file", file)
	cmd.Args[0], cmd.Dir = os.Args[0], filepath.Dir(file)
	proxy := "off"
	if _, err := os.Stat(filepath.Join(dir, rebuild.Modules)); err == nil {
		proxy = "file://" + filepath.Join(dir, rebuild.Modules)
	}
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(dir, "home"), "TMPDIR=" + dir, "GOPROXY=" + proxy, "GOSUMDB=off", "GOTOOLCHAIN=local",
		"GOMODCACHE=" + filepath.Join(dir, "modcache"), "GOCACHE=" + filepath.Join(dir, "gocache"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // compilers too
	cmd.WaitDelay = 5 * time.Second
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&said, progress)
	err = cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		f := fault.New(fault.Refused, "it cannot be built anew without a network: %w", err)
		for line := range strings.Lines(said.String()) {
			f.Detail("| " + strings.TrimRight(line, "\n"))
		}
		return nil, f.Mend("export the inputs where the release was built:  ashlar export RELEASE --to FILE")
	}
	var built struct {
		Components []cli.BuiltComponent `json:"components"`
	}
	if err := json.Unmarshal(out.Bytes(), &built); err != nil {
		return nil, fmt.Errorf("the output of the build: %w", err)
	}
	got := map[string]digest.Digest{}
	for _, c := range built.Components {
		got[c.Name] = c.Artifact
	}
	return got, nil
}

// removeAll removes a directory in which Go has made some read-only.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(p, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
