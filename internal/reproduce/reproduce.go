// Package reproduce tells whether builds are reproducible by building again, twice,
// under circumstances that differ as much as one machine allows, and comparing what
// came out byte by byte.
//
// Each build is a process of its own, the program itself, with a copy of the
// definition's directory, an empty state directory but for the packages that
// ashlar.lock names, and an empty cache of the Go command. What differs is told by
// [Report.Varied].
//
// Start at [Run]. TestScript/check in cmd/ashlar plants compilers that look at host name,
// user, directory and processors, and shows that each is found out.
package reproduce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/object"
)

// Request says what is built again.
type Request struct {
	Program string   // that builds: ashlar itself
	Args0   string   // its name
	Dir     string   // where to work; what is made there is removed
	State   string   // state directory, which is not copied if it is below the definition's
	File    string   // ashlar.yaml
	Outside []string // files and directories that the build reads outside of its directory, relative to it
	Inputs  []digest.Digest
	OneUser string                // why the builds are not made by several users; empty: they are
	Objects *object.Store         // that has the inputs, and what was built
	Built   map[string]Made       // by component: the build that is compared
	Tell    func(progress string) // called for each build
}

// Made is one artifact.
type Made struct {
	Artifact digest.Digest `json:"artifact"`
	Seal     digest.Digest `json:"seal"`
	Index    digest.Digest `json:"index,omitempty"` // of the artifacts for all platforms; empty: there is one alone
}

// Report is what came out.
type Report struct {
	Components []Component `json:"components"`
	Varied     []string    `json:"varied"`              // what differed between the builds
	NotVaried  []string    `json:"notVaried,omitempty"` // what could not be made to differ here, and why
}

// Component is one component in all builds.
type Component struct {
	Name         string          `json:"name"`
	Reproducible bool            `json:"reproducible"`
	Artifacts    []digest.Digest `json:"artifacts"` // here, and of the two builds
	Differences  []Difference    `json:"differences,omitempty"`
}

// Difference is one path that is not the same in two builds.
type Difference struct {
	Path   string   `json:"path"` // absolute; empty: the image's configuration
	What   []string `json:"what"`
	Offset int64    `json:"offset"`          // of the first byte that differs; -1: the bytes are the same
	Bytes  int64    `json:"bytes,omitempty"` // how many differ, as far as both are long
}

// Run builds twice and compares.
func Run(ctx context.Context, q Request) (Report, error) {
	work, err := os.MkdirTemp(q.Dir, "again-")
	if err != nil {
		return Report{}, fault.New(fault.Unavailable, "there is no place to build in: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // it is below the caches
	var twins []*twin
	for _, c := range circumstances() {
		t := &twin{q: q, c: c, work: filepath.Join(work, c.place)}
		if err := t.prepare(); err != nil {
			return Report{}, err
		}
		twins = append(twins, t)
	}
	report := Report{}
	for i, t := range twins {
		q.Tell(fmt.Sprintf("build %d of 2: %s", i+1, t.c))
		if err := t.build(ctx); err != nil {
			return Report{}, err
		}
		report.NotVaried = t.not
	}
	report.Varied = varied(report.NotVaried)
	for _, name := range sorted(q.Built) {
		c, err := compare(q, name, twins)
		if err != nil {
			return Report{}, err
		}
		report.Components = append(report.Components, c)
	}
	return report, nil
}

// compare holds the builds of one component against each other, each with the one before.
func compare(q Request, name string, twins []*twin) (c Component, err error) {
	before, objects := q.Built[name], q.Objects
	c = Component{Name: name, Reproducible: true, Artifacts: []digest.Digest{before.Artifact}}
	for _, t := range twins {
		now := t.made[name]
		c.Artifacts = append(c.Artifacts, now.Artifact)
		store, err := object.Open(t.state())
		if err != nil {
			return c, err
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		if now != before {
			c.Reproducible = false
			found, err := differences(objects, before, store, now)
			if err != nil {
				return c, err
			}
			c.add(found)
		}
		before, objects = now, store
	}
	return c, nil
}

// add keeps the first difference of each path.
func (c *Component) add(found []Difference) {
	seen := map[string]bool{}
	for _, d := range c.Differences {
		seen[d.Path] = true
	}
	for _, d := range found {
		if !seen[d.Path] {
			c.Differences = append(c.Differences, d)
		}
	}
}

func sorted(m map[string]Made) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
