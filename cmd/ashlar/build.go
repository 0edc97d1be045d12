package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// buildRelease builds into the object store of the state directory and keeps
// garbage collection away until the result's Unlock.
func buildRelease(ctx context.Context, q cli.BuildRequest) (cli.Built, error) {
	objects, err := object.Open(q.Dir)
	if err != nil {
		return cli.Built{}, err
	}
	unlock, err := objects.Share(ctx)
	if err != nil {
		return cli.Built{}, err
	}
	begun := time.Now()
	made := &collector{tell: q.Progress, parts: map[string]cli.BuiltComponent{}}
	b := &build.Builder{
		Objects: objects, Dir: q.Dir, Definition: filepath.Dir(q.File),
		Locked: q.Locked, Update: q.Update, Anew: q.Anew, Progress: made.event, Pull: puller(objects),
	}
	rel, err := build.Release(ctx, b, q.Definition)
	indexes := map[string]build.Index{}
	if err == nil && q.Platforms {
		indexes, err = build.Indexes(ctx, b, q.Definition, rel)
	}
	if err == nil && !q.Untested {
		err = runTests(ctx, objects, q, rel)
	}
	if err = errors.Join(err, objects.Close()); err != nil {
		unlock()
		return cli.Built{}, err
	}
	built := cli.Built{Release: rel, Took: time.Since(begun), Unlock: unlock}
	for _, c := range q.Definition.Components {
		one := made.component(c.Name, rel)
		one.Index = indexes[c.Name].Digest
		for _, m := range indexes[c.Name].Platforms {
			one.Platforms = append(one.Platforms, cli.BuiltPlatform{Arch: m.Arch, Artifact: m.Manifest, Ledger: m.Ledger})
		}
		built.Components = append(built.Components, one)
	}
	return built, nil
}

// collector gathers what a build tells of each component, and passes it on.
type collector struct {
	mu    sync.Mutex
	tell  func(cli.BuildEvent)
	parts map[string]cli.BuiltComponent
}

func (c *collector) event(e build.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Step == build.StepDone {
		c.parts[e.Component] = cli.BuiltComponent{Artifact: digest.Digest(e.Text), Files: e.Count, Bytes: e.Bytes, Reused: e.Reused}
		return
	}
	c.tell(cli.BuildEvent{
		Component: e.Component, Step: string(e.Step), Text: e.Text, Done: e.Done, Reused: e.Reused,
		Count: e.Count, Total: e.Total, Took: e.Took,
	})
}

func (c *collector) component(name string, rel release.Release) cli.BuiltComponent {
	part := c.parts[name]
	part.Name = name
	for _, env := range rel.Environments {
		part.Seal = env.Components[name].Spec.Tree // the same in every environment
		part.Ledger = env.Components[name].Ledger  // likewise
	}
	return part
}

func exportArtifact(ctx context.Context, q cli.ExportRequest) error {
	objects, err := object.Open(q.Dir)
	if err != nil {
		return err
	}
	return errors.Join(build.ExportLayout(ctx, objects, q.Artifact, q.Tag, q.To), objects.Close())
}
