package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/seal"
)

// parallelBuilds bounds the components that are built at the same time. Each is
// bound by the processors in turn, so more would only hold more files open.
const parallelBuilds = 4

// Release builds every component of the definition and puts the release
// together: the artifacts, and for each environment the merged settings with their
// sealed settings layer. Everything it names is an object when it returns.
//
// It prepares the lock first. Callers share the object store until the release
// is stored.
func Release(ctx context.Context, b *Builder, def *definition.Definition) (release.Release, error) {
	if _, err := PrepareLock(ctx, b, def); err != nil {
		return release.Release{}, err
	}
	artifacts, err := Components(ctx, b, def.Components)
	if err != nil {
		return release.Release{}, err
	}
	return assemble(b, def, artifacts)
}

// Components builds several components side by side. The result is in the order of the argument.
func Components(ctx context.Context, b *Builder, components []definition.Component) ([]Artifact, error) {
	artifacts := make([]Artifact, len(components))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelBuilds)
	for i, c := range components {
		g.Go(func() (err error) {
			artifacts[i], err = Component(ctx, b, c)
			return err
		})
	}
	return artifacts, g.Wait()
}

func assemble(b *Builder, def *definition.Definition, artifacts []Artifact) (release.Release, error) {
	r := release.Release{Schema: release.Schema, App: def.App, Environments: map[string]release.Environment{}}
	a := &assembler{b: b, batch: b.Objects.NewBatch(), seals: map[digest.Digest]digest.Digest{}}
	defer a.batch.Discard()
	for _, env := range def.Environments {
		e := release.Environment{
			Platform: env.Platform, Rollout: env.Rollout, Listen: env.Listen, TLS: env.TLS, Keep: env.Keep,
			Volumes: env.Volumes, Events: env.Events, Components: map[string]release.Component{},
		}
		for i, art := range artifacts {
			c, err := a.component(art, def.Components[i], env)
			if err != nil {
				return release.Release{}, fmt.Errorf("environment %s, component %s: %w", env.Name, art.Component, err)
			}
			e.Components[art.Component] = c
		}
		r.Environments[env.Name] = e
	}
	if err := a.batch.Commit(); err != nil {
		return release.Release{}, err
	}
	return r, r.Validate()
}

// assembler turns settings into what instances are.
type assembler struct {
	b     *Builder
	batch *object.Batch
	seals map[digest.Digest]digest.Digest // settings tree to its seal, of this release
}

func (a *assembler) component(art Artifact, def definition.Component, env definition.Environment) (release.Component, error) {
	s, err := withImage(env.Components[def.Name], art.Image)
	if err != nil {
		return release.Component{}, err
	}
	spec, err := a.spec(art, s)
	if err != nil {
		return release.Component{}, err
	}
	spec.Env = withAddresses(spec, def.Name, env)
	if def.Kind != release.KindService {
		spec.Kind = def.Kind
	}
	c := release.Component{
		Kind: def.Kind, Spec: spec, Ledger: art.Ledger, Replicas: s.Replicas, DrainMS: s.Drain.Milliseconds(),
		Needs: def.Needs, Schedule: s.Schedule, Hooks: s.Hooks, Schemas: def.Schemas,
	}
	if r := s.Route; r != nil {
		c.Route = &release.Route{Host: r.Host, Path: r.Path, TCP: r.TCP, Listen: r.Listen, HoldMS: r.Hold.Milliseconds(), Drains: r.Drains}
	}
	return c, nil
}

// withAddresses gives the variables of a component with the stable address of every
// other component that has one: REDIS_ADDR=redis:6379. What is declared wins.
func withAddresses(spec release.Spec, component string, env definition.Environment) map[string]string {
	out := maps.Clone(spec.Env)
	for name, s := range env.Components {
		variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_ADDR"
		_, declared := spec.Env[variable]
		declared = declared || slices.ContainsFunc(spec.Secrets, func(s release.Secret) bool { return s.Env == variable })
		if name == component || s.Route == nil || s.Route.TCP == 0 || declared {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[variable] = name + ":" + strconv.Itoa(s.Route.TCP)
	}
	return out
}

func (a *assembler) spec(art Artifact, s definition.Settings) (release.Spec, error) {
	uid, gid, err := resolveUser(a.b.Objects, art.Root, s.User)
	if err != nil {
		return release.Spec{}, err
	}
	spec := release.Spec{
		Artifact: art.Manifest, Tree: art.Seal,
		WorkDir: s.WorkDir, UID: uid, GID: gid, Port: s.Port, Env: maps.Clone(s.Env),
		MilliCPU: s.Resources.MilliCPU, Memory: s.Resources.Memory, PIDs: s.Resources.PIDs,
		StopSignal: s.Stop.Signal, StopGraceMS: s.Stop.Grace.Milliseconds(), Capabilities: s.Capabilities,
		Volumes: s.Volumes, Secrets: s.Secrets,
	}
	for _, t := range s.Tmpfs {
		spec.Tmpfs = append(spec.Tmpfs, release.Tmpfs{Path: t.Path, Size: t.Size, Mode: t.Mode})
	}
	if h := s.Health; h != nil {
		spec.Health = &release.Health{
			HTTP: h.HTTP, Exec: h.Exec, IntervalMS: h.Interval.Milliseconds(), TimeoutMS: h.Timeout.Milliseconds(),
			Successes: h.Successes, Failures: h.Failures, StartMS: h.Start.Milliseconds(), SettleMS: h.Settle.Milliseconds(),
		}
	}
	for _, f := range s.Files {
		spec.Files = append(spec.Files, release.ConfigFile{
			Path: f.Path, Digest: digest.FromBytes(f.Content), Size: int64(len(f.Content)), Mode: f.Mode, UID: f.UID, GID: f.GID,
		})
	}
	if spec.Settings, err = a.settings(art.Root, spec, s.Files); err != nil {
		return release.Spec{}, err
	}
	if spec.Command, err = command(art.Root, spec.Files, s); err != nil {
		return release.Spec{}, err
	}
	return spec, nil
}

// settings seals the settings layer and stores the config files in it, unless it
// was done before, for another environment or another release.
func (a *assembler) settings(root image.Tree, spec release.Spec, files []definition.ConfigFile) (digest.Digest, error) {
	t, err := seal.SettingsTree(root, spec)
	if err != nil {
		return "", err
	}
	key := digest.FromBytes(t.Marshal())
	if d, ok := a.seals[key]; ok {
		return d, nil
	}
	if d, ok := a.known(key, spec.Files); ok {
		a.seals[key] = d
		return d, nil
	}
	for _, f := range files {
		if _, err := a.batch.PutBytes(f.Content); err != nil {
			return "", err
		}
	}
	d, err := seal.PutBatch(a.batch, t)
	if err != nil {
		return "", fmt.Errorf("sealing the settings: %w", err)
	}
	a.seals[key] = d
	if err := a.batch.SetRef(refSettings, key.Encoded(), d); err != nil {
		return "", err
	}
	a.b.tell(Event{Step: StepSettings, Text: d.String(), Done: true, Count: len(files)})
	return d, nil
}

func (a *assembler) known(key digest.Digest, files []release.ConfigFile) (digest.Digest, bool) {
	d, ok := recall(a.b.Objects, refSettings, key.Encoded())
	if !ok {
		return "", false
	}
	for _, f := range files {
		if !a.b.Objects.Has(f.Digest) {
			return "", false
		}
	}
	return d, true
}
