package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
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

// DeployOptions say how a rollout is asked for.
type DeployOptions struct {
	Reason     string
	Queue      bool // wait for the rollout in flight, whatever the environment says
	Supersede  bool // end the rollout in flight: put it back, or take its place where it has touched nothing
	BreakGlass bool // in spite of the policy, if enough approvers say so; only with a reason
	Force      bool // in spite of a freeze or a schema contract; only with a reason
}

// Begun is what became of a request.
type Begun struct {
	Rollout rollout.Rollout // that was begun; with Queued, the one in flight, or none in a freeze
	Queued  int             // place among those that wait, from 1; 0: it was begun
}

// Deploy begins a rollout to a release that is stored, or lets it wait. It returns
// once that is in the record; Tick does the rest.
func (e *Engine) Deploy(ctx context.Context, now time.Time, actor string, key Key, d digest.Digest, o DeployOptions) (Begun, error) {
	return e.begin(ctx, now, key, func(rollout.State) (digest.Digest, rollout.Request, error) {
		return d, request(rollout.KindDeploy, actor, o), nil
	})
}

func request(kind, actor string, o DeployOptions) rollout.Request {
	return rollout.Request{Kind: kind, Actor: actor, Reason: o.Reason, Queue: o.Queue, Supersede: o.Supersede, Force: o.Force, BreakGlass: o.BreakGlass}
}

// Rollback begins a rollout to a known-good release: the one that ref names
// (number or digest), or without ref the last proven one before the current. A
// deploy in flight that came from that release is put back instead; any other is
// superseded, as nobody who goes back wants to wait.
func (e *Engine) Rollback(ctx context.Context, now time.Time, actor string, key Key, ref string, o DeployOptions) (Begun, error) {
	var want digest.Digest
	if ref != "" {
		stored, err := e.FindRelease(ctx, key.App, ref)
		if err != nil {
			return Begun{}, err
		}
		want = stored.Digest
	}
	if r, err := e.putBack(ctx, now, actor, key, want, o); r != nil || err != nil {
		if err != nil {
			return Begun{}, err
		}
		return Begun{Rollout: *r}, nil
	}
	return e.begin(ctx, now, key, func(s rollout.State) (digest.Digest, rollout.Request, error) {
		q := request(rollout.KindRollback, actor, o)
		q.Supersede = true
		if s.Current == nil && len(s.KnownGood) == 0 {
			return "", q, fault.New(fault.NotFound, "nothing was ever live in %s", key).Mend("deploy a release first:  ashlar deploy %s", key.Env)
		}
		if want != "" {
			return want, q, nil
		}
		to := s.RollbackTo()
		if to == "" {
			return "", q, fault.New(fault.NotFound, "%s has no known-good release before the current one", key).
				Mend("name a release:  ashlar rollback %s RELEASE; ashlar history lists them", key.Env)
		}
		return to, q, nil
	})
}

// putBack turns a deploy in flight round, if that is what a rollback to want (empty:
// to the release before) comes to. It gives nil otherwise.
func (e *Engine) putBack(ctx context.Context, now time.Time, actor string, key Key, want digest.Digest, o DeployOptions) (*rollout.Rollout, error) {
	state, _, err := e.Store.State(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read the state of %s: %w", key, err)
	}
	r := state.Rollout
	if r == nil || r.Kind != rollout.KindDeploy || r.From == nil || r.Step == rollout.Retiring || r.Step == rollout.Reverting ||
		want != "" && want != r.From.Release {
		return nil, nil
	}
	reason := "rolled back"
	if o.Reason != "" {
		reason += ": " + o.Reason
	}
	back, err := e.Control(ctx, now, actor, key, rollout.Command{Verb: rollout.VerbAbort, Reason: reason})
	return &back, err
}

// FindRelease finds a release of an application by its number, digest or the
// digest's beginning (at least 6 hex digits).
func (e *Engine) FindRelease(ctx context.Context, app, ref string) (Stored, error) {
	if d, err := digest.Parse(ref); err == nil {
		if stored, err := e.Store.Release(ctx, d); err == nil && stored.App == app {
			return stored, nil
		}
	}
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
		return Stored{}, fault.New(fault.NotFound, "application %s has no release %q", app, ref).Mend("list the releases:  ashlar history")
	default:
		return Stored{}, fault.New(fault.Invalid, "%q is the beginning of %d releases' digests", ref, len(found)).Mend("give more digits, or the number")
	}
}

// begin checks everything that a rollout needs before the current release is
// touched (I5), and puts it in flight or lets it wait.
func (e *Engine) begin(ctx context.Context, now time.Time, key Key, ask func(rollout.State) (digest.Digest, rollout.Request, error)) (Begun, error) {
	m := e.memory(key)
	m.Lock()
	defer m.Unlock()
	state, version, err := e.Store.State(ctx, key)
	if err != nil {
		return Begun{}, fmt.Errorf("read the state of %s: %w", key, err)
	}
	state.App, state.Env = key.App, key.Env
	d, q, err := ask(state)
	if err != nil {
		return Begun{}, err
	}
	stored, rel, err := e.release(ctx, d)
	if err != nil {
		return Begun{}, err
	}
	if q.To, err = TargetOf(stored, rel, key.Env); err != nil {
		return Begun{}, err
	}
	if e.Platforms[q.To.Platform] == nil {
		return Begun{}, fault.New(fault.Invalid, "platform %q is not known to this server", q.To.Platform).Mend("write  platform: local")
	}
	if q.Force && strings.TrimSpace(q.Reason) == "" {
		return Begun{}, fault.New(fault.Invalid, "who forces a rollout says why").Mend(`add --reason "..."`)
	}
	if err := e.inQuarantine(ctx, key, state, q.Kind, stored); err != nil {
		return Begun{}, err
	}
	if q.Hold, err = thaw(now, key, q); err != nil {
		return Begun{}, err
	}
	if err := e.onHand(ctx, rel, key.Env); err != nil {
		return Begun{}, err
	}
	if err := e.admit(ctx, now, key, &q); err != nil {
		return Begun{}, err
	}
	return e.launch(ctx, now, key, m, state, version, q)
}

// launch puts the rollout of a request in flight, or lets it wait, in one
// transaction with its entries.
func (e *Engine) launch(ctx context.Context, now time.Time, key Key, m *memory, state rollout.State, version int64, q rollout.Request) (Begun, error) {
	next, events, err := rollout.Begin(now, state, q)
	if err != nil {
		return Begun{}, err
	}
	if err := e.commit(ctx, now, q.Actor, key, version, next, events); err != nil {
		return Begun{}, fmt.Errorf("record the rollout: %w", err)
	}
	m.refused = nil
	e.Wake(key)
	var begun Begun
	if next.Rollout != nil {
		begun.Rollout = *next.Rollout
	}
	if begun.Rollout.Number <= state.Rollouts {
		begun.Queued = 1 + slices.IndexFunc(next.Queue, func(w rollout.Queued) bool { return w.To.Release == q.To.Release && w.At.Equal(now) })
	}
	return begun, nil
}

// onHand checks that every byte of the release is there.
func (e *Engine) onHand(ctx context.Context, rel release.Release, env string) error {
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
	Why       []rollout.Cause      `json:"why,omitempty"`      // the same, with everything that is known of it
	Problems  []string             `json:"problems,omitempty"` // what could not be found out
}

// Status observes an environment. What does not answer is a Problem, not an error.
func (e *Engine) Status(ctx context.Context, now time.Time, key Key) (Status, error) {
	state, _, err := e.Store.State(ctx, key)
	if err != nil {
		return Status{}, err
	}
	if state.App == "" {
		return Status{}, fault.New(fault.NotFound, "nothing was ever deployed to %s", key).Mend("deploy to it:  ashlar deploy %s", key.Env)
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
		seen := rollout.Observation{Instances: status.Instances, Router: status.Router, Metrics: e.answers(key)}
		if err = e.turn(ctx, now, key, state, &seen); err != nil {
			return status, err
		}
		seen.Admission = e.admission(ctx, now, state.Plea())
		d := e.Decide(now, state, seen)
		status.Waiting, status.Why = d.Waiting, d.Why
	}
	if trouble := e.trouble(key); trouble != "" {
		status.Problems = append(status.Problems, "the last step could not be taken and is tried again: "+trouble)
	}
	return status, nil
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
