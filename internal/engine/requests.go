package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// AddRelease validates a release and stores it. The same document again gives
// the number it already has.
func (e *Engine) AddRelease(ctx context.Context, now time.Time, actor string, rel release.Release) (Stored, error) {
	if err := rel.Validate(); err != nil {
		return Stored{}, err
	}
	doc, err := rel.Canonical()
	if err != nil {
		return Stored{}, err
	}
	d := digest.FromBytes(doc)
	return e.Store.AddRelease(ctx, Stored{App: rel.App, Digest: d, Doc: doc, Created: now.UTC()}, record.Entry{
		Time: now.UTC(), Actor: actor, Kind: "release.added", App: rel.App, Release: d,
	})
}

// Deploy begins a rollout to a release that is stored. It returns once the
// rollout is in the record; Tick does the rest.
func (e *Engine) Deploy(ctx context.Context, now time.Time, actor string, key Key, d digest.Digest, reason string) (rollout.Rollout, error) {
	return e.begin(ctx, now, key, func(rollout.State) (rollout.Request, error) {
		return rollout.Request{Kind: rollout.KindDeploy, Actor: actor, Reason: reason}, nil
	}, d)
}

// Rollback begins a rollout to a known-good release: the one that ref names
// (number or digest), or without ref the last one before the current.
func (e *Engine) Rollback(ctx context.Context, now time.Time, actor string, key Key, ref, reason string) (rollout.Rollout, error) {
	var want digest.Digest
	if ref != "" {
		stored, err := e.FindRelease(ctx, key.App, ref)
		if err != nil {
			return rollout.Rollout{}, err
		}
		want = stored.Digest
	}
	return e.begin(ctx, now, key, func(s rollout.State) (rollout.Request, error) {
		if s.Current == nil && len(s.KnownGood) == 0 {
			return rollout.Request{}, fault.New(fault.NotFound, "nothing was ever live in %s", key).Mend("deploy a release first: ashlar deploy %s", key.Env)
		}
		return rollout.Request{Kind: rollout.KindRollback, Actor: actor, Reason: reason}, nil
	}, want)
}

// FindRelease finds a release of an application by its number, digest or the
// digest's beginning (at least 6 hex digits).
func (e *Engine) FindRelease(ctx context.Context, app, ref string) (Stored, error) {
	all, err := e.Store.Releases(ctx, app)
	if err != nil {
		return Stored{}, err
	}
	number, numErr := strconv.Atoi(strings.TrimPrefix(ref, "#"))
	hex := strings.TrimPrefix(ref, "sha256:")
	var found []Stored
	for _, r := range all {
		if numErr == nil && r.Number == number {
			return r, nil
		}
		if len(hex) >= 6 && strings.HasPrefix(r.Digest.Encoded(), hex) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Stored{}, fault.New(fault.NotFound, "application %s has no release %q", app, ref).Mend("list the releases: ashlar history")
	default:
		return Stored{}, fault.New(fault.Invalid, "%q is the beginning of %d releases' digests", ref, len(found)).Mend("give more digits, or the number")
	}
}

// begin checks everything that a rollout needs before the current release is
// touched (I5), and puts it in flight.
func (e *Engine) begin(ctx context.Context, now time.Time, key Key, ask func(rollout.State) (rollout.Request, error), d digest.Digest) (rollout.Rollout, error) {
	m := e.memory(key)
	m.Lock()
	defer m.Unlock()
	state, version, err := e.Store.State(ctx, key)
	if err != nil {
		return rollout.Rollout{}, fmt.Errorf("read the state of %s: %w", key, err)
	}
	state.App, state.Env = key.App, key.Env
	q, err := ask(state)
	if err != nil {
		return rollout.Rollout{}, err
	}
	if d == "" {
		if d = state.RollbackTo(); d == "" {
			return rollout.Rollout{}, fault.New(fault.NotFound, "%s has no known-good release before the current one", key).
				Mend("name a release: ashlar rollback %s RELEASE; ashlar history lists them", key.Env)
		}
	}
	stored, rel, err := e.release(ctx, d)
	if err != nil {
		return rollout.Rollout{}, err
	}
	if q.To, err = TargetOf(stored, rel, key.Env); err != nil {
		return rollout.Rollout{}, err
	}
	if e.Platforms[q.To.Platform] == nil {
		return rollout.Rollout{}, fault.New(fault.Invalid, "platform %q is not known to this server", q.To.Platform).Mend("write platform: local")
	}
	if err := e.onHand(ctx, state, rel, key.Env); err != nil {
		return rollout.Rollout{}, err
	}
	return e.launch(ctx, now, key, m, state, version, q)
}

// launch puts the rollout of a request in flight, in one transaction with its entry.
func (e *Engine) launch(ctx context.Context, now time.Time, key Key, m *memory, state rollout.State, version int64, q rollout.Request) (rollout.Rollout, error) {
	next, events, err := rollout.Begin(now, state, q)
	if err != nil {
		return rollout.Rollout{}, err
	}
	if _, err := e.Store.Commit(ctx, key, version, next, entries(now, q.Actor, next, events, state)); err != nil {
		return rollout.Rollout{}, fmt.Errorf("record the rollout: %w", err)
	}
	m.refused = nil
	e.Wake(key)
	return *next.Rollout, nil
}

// onHand checks that every byte of the release is there.
func (e *Engine) onHand(ctx context.Context, state rollout.State, rel release.Release, env string) error {
	for name, c := range rel.Environments[env].Components {
		if err := e.Artifacts.Check(ctx, c.Spec); err != nil {
			return fmt.Errorf("component %s of the release is not on hand: %w", name, err)
		}
	}
	return nil
}

// Status is all there is to say of an environment at one time.
type Status struct {
	State     rollout.State        `json:"state"`
	Instances []rollout.Observed   `json:"instances"`
	Router    rollout.RouterStatus `json:"router"`
	Waiting   []string             `json:"waiting,omitempty"`  // what the rollout in flight waits for
	Problems  []string             `json:"problems,omitempty"` // what could not be found out
}

// Status observes an environment. What does not answer is a Problem, not an error.
func (e *Engine) Status(ctx context.Context, now time.Time, key Key) (Status, error) {
	state, _, err := e.Store.State(ctx, key)
	if err != nil {
		return Status{}, err
	}
	if state.App == "" {
		return Status{}, fault.New(fault.NotFound, "nothing was ever deployed to %s", key).Mend("deploy to it: ashlar deploy %s", key.Env)
	}
	status := Status{State: state}
	platform, err := e.platform(state)
	if err != nil || platform == nil {
		return status, err
	}
	if status.Instances, err = platform.List(ctx, key); err != nil {
		status.Problems = append(status.Problems, "the platform does not answer: "+err.Error())
	}
	if status.Router, err = e.Router.Status(ctx, key); err != nil {
		status.Problems = append(status.Problems, "the router does not answer: "+err.Error())
	}
	if len(status.Problems) == 0 {
		status.Waiting = e.Decide(now, state, rollout.Observation{Instances: status.Instances, Router: status.Router}).Waiting
	}
	if trouble := e.trouble(key); trouble != "" {
		status.Problems = append(status.Problems, "the last step could not be taken and is tried again: "+trouble)
	}
	return status, nil
}

// Releases lists an application's releases with their documents parsed.
func (e *Engine) Releases(ctx context.Context, app string) ([]Stored, error) {
	return e.Store.Releases(ctx, app)
}

// Current gives the release that is live in an environment; nil if none is.
func (e *Engine) Current(ctx context.Context, key Key) (*Stored, *release.Release, error) {
	state, _, err := e.Store.State(ctx, key)
	if err != nil || state.Current == nil {
		return nil, nil, err
	}
	stored, rel, err := e.release(ctx, state.Current.Release)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	return &stored, &rel, err
}

// TargetOf reduces a release to what deciding needs of it in one environment.
func TargetOf(stored Stored, rel release.Release, env string) (rollout.Target, error) {
	re, ok := rel.Environments[env]
	if !ok {
		return rollout.Target{}, fault.New(fault.NotFound, "release %d has no environment %q", stored.Number, env).
			Mend("add it to ashlar.yaml under environments: and deploy again")
	}
	t := rollout.Target{Release: stored.Digest, Number: stored.Number, Platform: re.Platform, Listen: re.Listen, Strategy: rollout.Strategy{Kind: re.Rollout.Strategy}}
	for _, name := range sortedKeys(re.Components) {
		c := re.Components[name]
		rc := rollout.Component{
			Name: name, Spec: c.Spec.Digest(), Replicas: c.Replicas, Start: 30 * time.Second,
			Drain: milliseconds(c.DrainMS), Grace: milliseconds(c.Spec.StopGraceMS),
		}
		if c.Spec.Health != nil {
			rc.Start = milliseconds(c.Spec.Health.StartMS)
		}
		if c.Route != nil {
			rc.Route = &rollout.Route{Host: c.Route.Host, Path: c.Route.Path, Hold: milliseconds(c.Route.HoldMS)}
		}
		t.Components = append(t.Components, rc)
	}
	return t, nil
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
