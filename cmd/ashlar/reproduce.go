package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/object"
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
	inputs, images, err := locked(filepath.Dir(q.File))
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
	r, err := reproduce.Run(ctx, request)
	report.Varied, report.NotVaried = r.Varied, r.NotVaried
	for _, c := range r.Components {
		out := cli.CheckedComponent{Name: c.Name, Reproducible: c.Reproducible, Artifacts: c.Artifacts}
		for _, d := range c.Differences {
			out.Differences = append(out.Differences, cli.CheckDifference(d))
		}
		report.Components = append(report.Components, out)
	}
	return report, err
}

// locked are the packages that ashlar.lock names, and the images that are not below the
// definition's directory but have a path relative to it.
func locked(dir string) (packages []digest.Digest, images []string, err error) {
	lock, err := build.ReadLockFile(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range lock.Components {
		for _, d := range c.Debian {
			for _, p := range d.Lock.Packages {
				packages = append(packages, p.SHA256)
			}
		}
		for _, i := range c.Images {
			if path := filepath.Clean(i.Path); strings.HasPrefix(path, "../") {
				images = append(images, path)
			}
		}
	}
	return packages, images, nil
}
