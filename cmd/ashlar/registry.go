package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/object"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/registry"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/store"
)

// serveRegistry serves the object store of a state directory until ctx ends. The
// server may run beside it, or not.
func serveRegistry(ctx context.Context, q cli.RegistryRequest, stderr io.Writer) (err error) {
	log := logger(stderr, q.Log)
	var certificate *registry.Certificate
	if q.Certificate != "" {
		if certificate, err = registry.OpenCertificate(q.Certificate, q.Key); err != nil {
			return err
		}
	}
	var users *registry.Users
	if q.Users != "" {
		if users, err = registry.OpenUsers(q.Users, log); err != nil {
			return err
		}
	}
	l, loopback, err := registry.Listen(q.Listen, users != nil && certificate != nil)
	if err != nil {
		return err
	}
	objects, err := object.Open(q.Dir)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	releases := &releaseCatalog{path: filepath.Join(q.Dir, "ashlar.db"), objects: objects}
	s := registry.New(registry.Config{
		Objects: objects, Catalog: releases, Users: users, Loopback: loopback && users == nil, Now: time.Now, Log: log,
	})
	log.Info("registry serves", "address", l.Addr().String(), "dir", q.Dir, "tls", certificate != nil, "users", users != nil)
	err = registry.Serve(ctx, l, s, certificate, log)
	return errors.Join(err, releases.close(), objects.Close())
}

// releaseCatalog is registry.Catalog over the releases of a state directory: each
// component is a repository APP/COMPONENT, with the numbers and digests of releases as
// tags. The record says when there is something new.
type releaseCatalog struct {
	path    string
	objects *object.Store

	mu       sync.Mutex
	store    *store.Store
	size     int64 // of the record, as far as it was read
	releases map[digest.Digest]engine.Stored
	tags     map[string]map[string]digest.Digest
}

// Artifacts is registry.Catalog.Artifacts.
func (c *releaseCatalog) Artifacts(ctx context.Context) (map[string]map[string]digest.Digest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store == nil {
		s, err := store.Look(ctx, c.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // no server has run yet
		}
		if err != nil {
			return nil, err
		}
		c.store, c.releases = s, map[digest.Digest]engine.Stored{}
	}
	size, _, err := c.store.Head(ctx)
	if err != nil || size == c.size {
		return c.tags, err
	}
	changed, err := c.catchUp(ctx, size)
	if err != nil {
		return nil, err
	}
	if changed || c.tags == nil {
		if c.tags, err = c.repositories(); err != nil {
			return nil, err
		}
	}
	c.size = size
	return c.tags, nil
}

// catchUp reads the record from where it was read to, and says whether a release came
// or went.
func (c *releaseCatalog) catchUp(ctx context.Context, size int64) (changed bool, err error) {
	for from := c.size; from < size; from += entriesAtOnce {
		entries, err := c.store.Entries(ctx, engine.Key{}, from, min(size, from+entriesAtOnce))
		if err != nil {
			return changed, err
		}
		for _, e := range entries {
			if e.Kind != "release.added" && e.Kind != "release.collected" {
				continue
			}
			changed = true
			if err := c.look(ctx, e); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

func (c *releaseCatalog) look(ctx context.Context, e record.Entry) error {
	if e.Kind == "release.collected" {
		delete(c.releases, e.Release)
		return nil
	}
	s, err := c.store.Release(ctx, e.Release)
	if err == nil && !s.Collected {
		c.releases[e.Release] = s
	}
	return err
}

func (c *releaseCatalog) repositories() (map[string]map[string]digest.Digest, error) {
	all := map[string]map[string]digest.Digest{}
	for _, s := range c.releases {
		rel, err := release.Parse(s.Doc)
		if err != nil {
			return nil, err
		}
		for component, artifact := range artifactsOf(rel) {
			if !c.objects.Has(artifact) {
				continue
			}
			name := s.App + "/" + component
			if all[name] == nil {
				all[name] = map[string]digest.Digest{}
			}
			all[name][strconv.Itoa(s.Number)] = artifact
			all[name][s.Digest.Encoded()] = artifact
		}
	}
	return all, nil
}

// artifactsOf gives a release's artifacts by component; they are the same in every
// environment.
func artifactsOf(rel release.Release) map[string]digest.Digest {
	out := map[string]digest.Digest{}
	for _, env := range rel.Environments {
		for name, component := range env.Components {
			out[name] = component.Spec.Artifact
		}
	}
	return out
}

func (c *releaseCatalog) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store == nil {
		return nil
	}
	return c.store.Close()
}

// registryUser changes a file of users, and gives the token if it made one.
func registryUser(q cli.RegistryUserRequest) (string, error) {
	if q.Remove {
		return "", registry.SetUser(q.File, q.Name, "")
	}
	line, token, err := registry.UserLine(q.Name, string(q.Password), q.Write)
	if err != nil {
		return "", err
	}
	return token, registry.SetUser(q.File, q.Name, line)
}

// pushArtifact brings an image of the object store to another registry, or the index that
// it is in.
func pushArtifact(ctx context.Context, q cli.PushRequest) (_ cli.Pushed, err error) {
	objects, err := object.Open(q.Dir)
	if err != nil {
		return cli.Pushed{}, err
	}
	defer func() { err = errors.Join(err, objects.Close()) }()
	artifact := q.Artifact
	if q.Whole {
		index, err := build.IndexOf(objects, artifact)
		if err != nil {
			return cli.Pushed{}, err
		}
		artifact = cmp.Or(index, artifact)
	}
	done, err := registry.Push(ctx, objects, artifact, q.To, func(m registry.Moved) { q.Progress(cli.Moved(m)) })
	return cli.Pushed{Reference: done.Reference, Manifest: done.Manifest, Images: done.Images, Statements: done.Statements, Bytes: done.Bytes}, err
}

// pullImage brings an image from another registry into the object store, with the
// statements about it.
func pullImage(ctx context.Context, q cli.PullRequest) (cli.Pulled, error) {
	objects, err := object.Open(q.Dir)
	if err != nil {
		return cli.Pulled{}, err
	}
	f, err := registry.Fetch(ctx, objects, q.From, q.Arch, false, func(m registry.Moved) { q.Progress(cli.Moved(m)) })
	if err == nil {
		err = registry.FetchStatements(ctx, objects, &f)
	}
	return cli.Pulled{
		Reference: f.Reference, Repository: f.Repository, Manifest: f.Manifest, Images: len(f.Images), Layers: len(f.Layers),
		Statements: f.Statements, Others: f.Others, Bytes: f.Bytes,
	}, errors.Join(err, objects.Close())
}

// puller is build.Puller: what a build takes in is kept by the build.
func puller(objects *object.Store) build.Puller {
	return func(ctx context.Context, reference, arch string) (named, manifest digest.Digest, err error) {
		f, err := registry.Fetch(ctx, objects, reference, arch, true, func(registry.Moved) {})
		return f.Named, f.Manifest, err
	}
}
