package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/oci"
	"github.com/ashlar-infra/ashlar/internal/reproduce"
)

// checkBuild builds again and compares. The object store is shared with the build that
// is compared, whose lock the caller holds.
func checkBuild(ctx context.Context, q cli.CheckRequest) (report cli.CheckReport, err error) {
	program, err := os.Executable()
	if err != nil {
		return report, err
	}
	objects, err := object.Open(q.Dir)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	dir := filepath.Dir(q.File)
	lock, err := build.ReadLockFile(dir)
	if err != nil {
		return report, err
	}
	inputs, images, err := locked(objects, lock)
	if err != nil {
		return report, err
	}
	work := filepath.Join(q.Dir, "cache", "tmp")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return report, err
	}
	request := reproduce.Request{
		Program: program, Args0: os.Args[0], Dir: work, State: q.Dir, File: q.File, Outside: append(q.Outside, images...), Inputs: inputs,
		Objects: objects, Built: map[string]reproduce.Made{}, Tell: q.Tell,
	}
	for _, c := range q.Built.Components {
		request.Built[c.Name] = reproduce.Made{Artifact: c.Artifact, Seal: c.Seal, Index: c.Index}
	}
	if lock.Dockerfiles() {
		request.OneUser = "Dockerfiles are built by programs that need the user who builds"
	}
	r, err := reproduce.Run(ctx, request)
	report.Varied, report.NotVaried = r.Varied, r.NotVaried
	for _, c := range r.Components {
		out := cli.CheckedComponent{Name: c.Name, Reproducible: c.Reproducible, Artifacts: c.Artifacts}
		for _, d := range c.Differences {
			out.Differences = append(out.Differences, cli.CheckDifference(d))
		}
		report.Components = append(report.Components, out)
	}
	if err == nil && !q.Locked {
		report.Noted, err = note(dir, lock, r)
	}
	return report, err
}

// note writes into ashlar.lock what was shown of Dockerfiles. before is the lock that
// the builds were made by.
func note(dir string, before *build.LockFile, r reproduce.Report) (bool, error) {
	lock, err := build.ReadLockFile(dir)
	if err != nil {
		return false, err
	}
	if !reflect.DeepEqual(lock, before) {
		return false, fault.New(fault.Conflict, "ashlar.lock was changed while the builds were compared").Mend("run  ashlar build --check  again")
	}
	news := false
	for _, c := range r.Components {
		news = lock.ShowReproducible(c.Name, c.Reproducible) || news
	}
	if !news {
		return false, nil
	}
	return lock.Write(dir)
}

// locked are the packages and images that a lock names, as objects, and the images that
// are not below the definition's directory but have a path relative to it.
func locked(objects *object.Store, lock *build.LockFile) (inputs []digest.Digest, images []string, err error) {
	for _, c := range lock.Components {
		for _, d := range c.Debian {
			for _, p := range d.Lock.Packages {
				inputs = append(inputs, p.SHA256)
			}
		}
		for _, i := range c.Images {
			if path := filepath.Clean(i.Path); strings.HasPrefix(path, "../") {
				images = append(images, path)
			}
			if !i.InRegistry() {
				continue
			}
			blobs, err := oci.Blobs(objects, i.Manifest)
			if err != nil {
				return nil, nil, err
			}
			inputs = append(inputs, blobs...)
		}
	}
	return inputs, images, nil
}
