package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/gc"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/referrer"
	"github.com/ashlar-infra/ashlar/internal/registry"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/seal"
	"github.com/ashlar-infra/ashlar/internal/secret"
	"github.com/ashlar-infra/ashlar/internal/store"
)

// How long references stay after their last use. Inputs are what a lock names and
// an archive may have dropped, so they stay longer than what can be made again.
const (
	cacheAge    = 30 * 24 * time.Hour
	inputAge    = 365 * 24 * time.Hour
	databaseAge = 100 * inputAge  // until another takes its place
	defaultKeep = 5               // of an environment in which nothing was ever live
	lockWait    = 2 * time.Second // for a build or a deploy to end
)

// inputKinds are the kinds of references to inputs of builds.
var inputKinds = []string{"deb-input", "image-input"}

// garbage collects over the server's stores.
type garbage struct {
	dir       string
	store     *store.Store
	objects   *object.Store
	artifacts *artifacts
	secrets   *secrets // nil: there are none
	log       *slog.Logger
}

// kept is what stays, and what is marked as gone.
type kept struct {
	releases []release.Release
	refs     []api.ReleaseRef
	gone     []engine.Stored
}

// collect is one collection. Nobody builds or begins a rollout meanwhile.
func (g *garbage) collect(ctx context.Context, actor string, q api.GCRequest) (api.GCReport, error) {
	unlock, err := g.lock(ctx)
	if err != nil {
		return api.GCReport{}, err
	}
	defer unlock()
	k, err := g.keep(ctx, q.Keep)
	if err != nil {
		return api.GCReport{}, err
	}
	kinds, err := g.kinds()
	if err != nil {
		return api.GCReport{}, err
	}
	pushed, err := registry.Keep(g.objects, time.Now())
	if err != nil {
		return api.GCReport{}, fmt.Errorf("nothing was removed: %w", err)
	}
	source := gc.Source{Pins: pushed.Objects, Closed: []string{factsKind}, Objects: g.objects, Kinds: kinds, Seal: func(d digest.Digest) (image.Tree, error) { return seal.Read(g.objects, d) }, About: about}
	for _, r := range pushed.Gone {
		source.Gone = append(source.Gone, gc.Ref{Kind: r.Kind, Name: r.Name})
	}
	plan, err := gc.Mark(time.Now(), source, k.releases)
	if err != nil {
		return api.GCReport{}, fmt.Errorf("nothing was removed: %w", err)
	}
	report := api.GCReport{
		DryRun: q.DryRun, Releases: k.refs, Refs: len(plan.Refs),
		Kept: api.Amount{Objects: plan.Kept, Bytes: plan.KeptB}, Removed: api.Amount{Objects: len(plan.Remove), Bytes: plan.RemoveB},
	}
	var old []secret.Version
	if g.secrets != nil {
		if old, err = g.secrets.old(k); err != nil {
			return report, err
		}
	}
	report.Secrets = len(old)
	if q.DryRun {
		return report, nil
	}
	if err := g.secrets.remove(ctx, actor, "no kept release names it", old); err != nil {
		return report, err
	}
	if k.gone, err = g.losing(k.gone, plan); err != nil {
		return report, err
	}
	done, err := g.sweep(ctx, actor, k, plan)
	report.Removed, report.Refs = api.Amount{Objects: done.Objects, Bytes: done.Bytes}, done.Refs
	return report, err
}

func (g *garbage) lock(ctx context.Context) (func(), error) {
	wait, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	unlock, err := g.objects.Exclusive(wait)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fault.New(fault.Conflict, "a build or a deploy uses the object store").Mend("wait for it to end, then  ashlar gc")
	}
	return unlock, err
}

// sweep records what it is about to do, does it, and records what came of it.
func (g *garbage) sweep(ctx context.Context, actor string, k kept, plan gc.Plan) (gc.Removed, error) {
	if len(plan.Remove)+len(plan.Refs)+len(k.gone) == 0 {
		return gc.Removed{}, nil
	}
	entry := func(kind string, objects int, bytes int64, refs int) record.Entry {
		return record.Entry{Time: time.Now().UTC(), Actor: actor, Kind: kind, Data: map[string]string{
			"objects": strconv.Itoa(objects), "bytes": strconv.FormatInt(bytes, 10), "refs": strconv.Itoa(refs),
		}}
	}
	if err := g.store.Append(ctx, []record.Entry{entry("gc.begun", len(plan.Remove), plan.RemoveB, len(plan.Refs))}); err != nil {
		return gc.Removed{}, err
	}
	for _, r := range k.gone {
		err := g.store.MarkCollected(ctx, r.Digest, record.Entry{
			Time: time.Now().UTC(), Actor: actor, Kind: "release.collected", App: r.App,
			Reason: "no environment keeps it", Data: map[string]string{"number": strconv.Itoa(r.Number)},
		})
		if err != nil {
			return gc.Removed{}, err
		}
	}
	g.artifacts.forget()
	done, err := gc.Sweep(ctx, g.objects, plan)
	ended := entry("gc.ended", done.Objects, done.Bytes, done.Refs)
	if err != nil {
		ended.Reason = "cut short: " + fault.Of(err).What
	}
	g.log.Info("garbage collected", "objects", done.Objects, "bytes", done.Bytes, "refs", done.Refs)
	return done, errors.Join(err, g.store.Append(context.WithoutCancel(ctx), []record.Entry{ended}))
}

// losing gives the releases that lose something by the plan. The others are on
// hand as long as the build cache has what they need.
func (g *garbage) losing(candidates []engine.Stored, plan gc.Plan) ([]engine.Stored, error) {
	goes := make(map[digest.Digest]bool, len(plan.Remove))
	for _, o := range plan.Remove {
		goes[o.Digest] = true
	}
	var out []engine.Stored
	for _, s := range candidates {
		rel, err := release.Parse(s.Doc)
		if err != nil {
			return nil, err
		}
		if g.loses(rel, goes) {
			out = append(out, s)
		}
	}
	return out, nil
}

func (g *garbage) loses(rel release.Release, goes map[digest.Digest]bool) bool {
	for _, env := range rel.Environments {
		for _, c := range env.Components {
			if goes[c.Spec.Artifact] {
				return true
			}
			for _, d := range []digest.Digest{c.Spec.Tree, c.Spec.Settings} {
				if goes[d] {
					return true
				}
				t, err := seal.Read(g.objects, d)
				if err != nil || slices.ContainsFunc(t.Entries, func(e image.Entry) bool { return goes[e.Digest] }) {
					return true
				}
			}
		}
	}
	return false
}

// keep decides which releases stay.
func (g *garbage) keep(ctx context.Context, keep int) (kept, error) {
	envs, err := g.environments(ctx, keep)
	if err != nil {
		return kept{}, err
	}
	stored, err := g.releases(ctx)
	if err != nil {
		return kept{}, err
	}
	byDigest := map[digest.Digest]engine.Stored{}
	var all []gc.Release
	for _, s := range stored {
		byDigest[s.Digest] = s
		all = append(all, gc.Release{App: s.App, Number: s.Number, Digest: s.Digest})
	}
	var k kept
	for _, r := range gc.Keep(all, envs) {
		s := byDigest[r.Digest]
		rel, err := release.Parse(s.Doc)
		if err != nil {
			return kept{}, err
		}
		if s.Collected && !g.onHand(ctx, rel) {
			delete(byDigest, r.Digest) // it went before, when fewer were to be kept
			continue
		}
		k.releases = append(k.releases, rel)
		k.refs = append(k.refs, api.ReleaseRef{Number: s.Number, Digest: s.Digest})
		delete(byDigest, r.Digest)
	}
	for _, s := range stored {
		if _, goes := byDigest[s.Digest]; goes && !s.Collected {
			k.gone = append(k.gone, s)
		}
	}
	return k, nil
}

func (g *garbage) onHand(ctx context.Context, rel release.Release) bool {
	for _, env := range rel.Environments {
		for _, c := range env.Components {
			if g.artifacts.Check(ctx, c.Spec) != nil {
				return false
			}
		}
	}
	return true
}

func (g *garbage) environments(ctx context.Context, keep int) ([]gc.Environment, error) {
	keys, err := g.store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	var envs []gc.Environment
	for _, key := range keys {
		state, _, err := g.store.State(ctx, key)
		if err != nil {
			return nil, err
		}
		e := gc.Environment{State: state, Keep: keep}
		if keep == 0 {
			if e.Keep, err = g.keepOf(ctx, key, state.Current); err != nil {
				return nil, err
			}
		}
		envs = append(envs, e)
	}
	return envs, nil
}

// keepOf is how many known-good releases the live release says that its
// environment keeps.
func (g *garbage) keepOf(ctx context.Context, key engine.Key, live *rollout.Target) (int, error) {
	if live == nil {
		return defaultKeep, nil
	}
	stored, err := g.store.Release(ctx, live.Release)
	if err != nil {
		return 0, err
	}
	rel, err := release.Parse(stored.Doc)
	if err != nil {
		return 0, err
	}
	return max(1, rel.Environments[key.Env].Keep), nil
}

// entriesAtOnce bounds the memory of reading the record.
const entriesAtOnce = 5000

// releases lists the releases of every application that the record tells of.
func (g *garbage) releases(ctx context.Context) ([]engine.Stored, error) {
	size, _, err := g.store.Head(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var all []engine.Stored
	for from := int64(0); from < size; from += entriesAtOnce {
		entries, err := g.store.Entries(ctx, engine.Key{}, from, min(size, from+entriesAtOnce))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Kind != "release.added" || seen[e.App] {
				continue
			}
			seen[e.App] = true
			stored, err := g.store.Releases(ctx, e.App)
			if err != nil {
				return nil, err
			}
			all = append(all, stored...)
		}
	}
	return all, nil
}

// about is what a reference is about: statements stay while their artifact does, and what
// a release was judged by while it does.
func about(kind, name string) digest.Digest {
	if kind != referrer.Kind && kind != factsKind {
		return ""
	}
	return referrer.Subject(name)
}

// kinds lists the references there are.
func (g *garbage) kinds() (map[string]time.Duration, error) {
	dirs, err := os.ReadDir(filepath.Join(g.dir, "refs"))
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list the references: %w", err)
	}
	kinds := map[string]time.Duration{}
	for _, d := range dirs {
		if !registry.IsKind(d.Name()) {
			kinds[d.Name()] = cacheAge
		}
	}
	for _, kind := range inputKinds {
		kinds[kind] = inputAge
	}
	kinds[databaseKind] = databaseAge
	return kinds, nil
}
