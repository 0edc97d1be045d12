package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/secret"
	"github.com/ashlar-infra/ashlar/internal/store"
)

// secrets is api.Secrets: the values are in one store, what happened to them in the
// record, and what they are needed for in the releases that gc keeps.
type secrets struct {
	values  *secret.Store
	record  *store.Store
	garbage *garbage
}

var _ api.Secrets = (*secrets)(nil)

const secretSet = "secret.set"

// openSecrets opens the secrets of a state directory; identity is the file that opens
// them, if it is not in there. The garbage is still to be set.
func openSecrets(ctx context.Context, dir, identity string, record *store.Store) (*secrets, error) {
	values, err := secret.Open(filepath.Join(dir, "secrets"), cmp.Or(identity, filepath.Join(dir, "secret-identity")))
	if err != nil {
		return nil, err
	}
	s := &secrets{values: values, record: record}
	return s, s.recover(ctx)
}

// Set seals the value, records the version and lets it be seen, in this order: a crash
// leaves either nothing or what recover finishes.
func (s *secrets) Set(ctx context.Context, actor string, q api.SetSecret) (api.Secret, error) {
	if err := s.fits(ctx, q); err != nil {
		return api.Secret{}, err
	}
	v, err := s.values.Seal(engine.Key{App: q.App, Env: q.Env}, q.Name, q.Value)
	if err != nil {
		return api.Secret{}, err
	}
	ctx = context.WithoutCancel(ctx) // half of it would be what recover is for
	if err := s.record.Append(ctx, []record.Entry{secretEntry(secretSet, actor, v)}); err != nil {
		return api.Secret{}, errors.Join(err, s.values.Drop(v))
	}
	if err := s.values.Commit(v); err != nil {
		return api.Secret{}, err
	}
	return api.Secret{Name: v.Name, Version: v.Number, Sealed: v.Sealed, Set: time.Now().UTC()}, nil
}

// fits refuses a value that the current release would hand on in a variable, and that
// no variable can hold.
func (s *secrets) fits(ctx context.Context, q api.SetSecret) error {
	if bytes.IndexByte(q.Value, 0) < 0 {
		return nil
	}
	state, _, err := s.record.State(ctx, engine.Key{App: q.App, Env: q.Env})
	if err != nil || state.Current == nil {
		return err
	}
	stored, err := s.record.Release(ctx, state.Current.Release)
	if err != nil {
		return err
	}
	rel, err := release.Parse(stored.Doc)
	if err != nil {
		return err
	}
	for _, c := range rel.Environments[q.Env].Components {
		for _, one := range c.Spec.Secrets {
			if one.Name == q.Name && one.Env != "" {
				return fault.New(fault.Refused, "the value of secret %s has a NUL byte, and instances have it in the variable %s", q.Name, one.Env).
					Mend("set a value without, such as its base64; or deploy a release without  env:  first")
			}
		}
	}
	return nil
}

func secretEntry(kind, actor string, v secret.Version) record.Entry {
	return record.Entry{Time: time.Now().UTC(), Actor: actor, Kind: kind, App: v.Key.App, Env: v.Key.Env, Data: map[string]string{
		"name": v.Name, "version": strconv.Itoa(v.Number), "sealed": v.Sealed.String(),
	}}
}

// recover finishes what a crash left: a version that the record has is let be seen, another
// was never answered for, and goes.
func (s *secrets) recover(ctx context.Context) error {
	pending, err := s.values.Pending()
	if err != nil {
		return err
	}
	for _, v := range pending {
		entries, err := s.record.Entries(ctx, v.Key, 0, -1)
		if err != nil {
			return err
		}
		finish := s.values.Drop
		if slices.ContainsFunc(entries, func(e record.Entry) bool { return e.Kind == secretSet && e.Data["sealed"] == v.Sealed.String() }) {
			finish = s.values.Commit
		}
		if err := finish(v); err != nil {
			return err
		}
	}
	return nil
}

func (s *secrets) List(ctx context.Context, app, env string, uses bool) ([]api.Secret, error) {
	versions, err := s.values.List(engine.Key{App: app, Env: env})
	if err != nil {
		return nil, err
	}
	if !uses {
		out := listed(versions, nil)
		return out, s.markNUL(ctx, engine.Key{App: app, Env: env}, out)
	}
	kept, err := s.garbage.keep(ctx, 0)
	return listed(versions, &kept), err
}

// markNUL says of the newest version of each secret whether it has a NUL byte.
func (s *secrets) markNUL(ctx context.Context, key engine.Key, all []api.Secret) error {
	for i := range all {
		if i < len(all)-1 && all[i+1].Name == all[i].Name {
			continue
		}
		value, err := s.values.Newest(ctx, key, all[i].Name)
		if err != nil {
			return err
		}
		all[i].NUL = bytes.IndexByte(value, 0) >= 0
	}
	return nil
}

// old gives the versions that no kept release names and that are not the newest of
// their secret.
func (s *secrets) old(k kept) ([]secret.Version, error) {
	versions, err := s.values.All()
	var out []secret.Version
	for i, v := range versions {
		newest := i == len(versions)-1 || versions[i+1].Name != v.Name || versions[i+1].Key != v.Key
		if !newest && len(k.need(v, false)) == 0 {
			out = append(out, v)
		}
	}
	return out, err
}

// remove removes versions for good, each after its entry.
func (s *secrets) remove(ctx context.Context, actor, reason string, versions []secret.Version) error {
	ctx = context.WithoutCancel(ctx) // half of it would be hard to tell
	for _, v := range versions {
		e := secretEntry("secret.removed", actor, v)
		e.Reason = reason
		if err := s.record.Append(ctx, []record.Entry{e}); err != nil {
			return err
		}
		if err := s.values.Remove(v); err != nil {
			return err
		}
	}
	return nil
}

func listed(versions []secret.Version, k *kept) []api.Secret {
	out := []api.Secret{}
	for i, v := range versions {
		newest := i == len(versions)-1 || versions[i+1].Name != v.Name
		one := api.Secret{Name: v.Name, Version: v.Number, Sealed: v.Sealed, Set: v.Set}
		if k != nil {
			one.Needed = k.need(v, newest)
		}
		out = append(out, one)
	}
	return out
}

// need gives the kept releases that a version is needed for: instances that get it, and,
// of the newest, events that are signed with it.
func (k *kept) need(v secret.Version, newest bool) []api.ReleaseRef {
	var out []api.ReleaseRef
	for i, rel := range k.releases {
		if rel.App != v.Key.App {
			continue
		}
		env := rel.Environments[v.Key.Env]
		needed := newest && slices.ContainsFunc(env.Events, func(w release.Webhook) bool { return w.Secret == v.Name })
		needed = needed || newest && env.Rollout.Analysis != nil && env.Rollout.Analysis.Secret == v.Name
		for _, c := range env.Components {
			needed = needed || slices.ContainsFunc(c.Spec.Secrets, func(s release.Secret) bool { return s.Sealed == v.Sealed })
		}
		if needed {
			out = append(out, k.refs[i])
		}
	}
	return out
}

// Remove keeps builds and deploys away meanwhile, as one of them may be about to name the
// version, and removes all of what is asked for or nothing.
func (s *secrets) Remove(ctx context.Context, actor string, q api.RemoveSecret) ([]api.Secret, error) {
	unlock, err := s.garbage.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key := engine.Key{App: q.App, Env: q.Env}
	versions, err := s.values.List(key)
	if err != nil {
		return nil, err
	}
	kept, err := s.garbage.keep(ctx, 0)
	if err != nil {
		return nil, err
	}
	all := listed(versions, &kept)
	var going []secret.Version
	var out []api.Secret
	for i, one := range all {
		if one.Name != q.Name || q.Version != 0 && one.Version != q.Version {
			continue
		}
		if len(one.Needed) > 0 {
			return nil, needed(q, one)
		}
		going, out = append(going, versions[i]), append(out, one)
	}
	if len(going) == 0 {
		return nil, fault.New(fault.NotFound, "%s has no such version of secret %q", key, q.Name).Mend("list them:  ashlar secret ls %s", q.Env)
	}
	return out, s.remove(ctx, actor, "", going)
}

func needed(q api.RemoveSecret, one api.Secret) error {
	var numbers []string
	for _, r := range one.Needed {
		numbers = append(numbers, strconv.Itoa(r.Number))
	}
	return fault.New(fault.Refused, "version %d of secret %s is needed by release %s, which can be rolled back to", one.Version, one.Name, strings.Join(numbers, " and ")).
		At(q.App+"/"+q.Env).
		Mend("deploy releases without it until  ashlar gc  keeps none that names it, or rotate it:  ashlar secret set %s %s", q.Env, q.Name)
}

// holds checks that the versions that a spec names can be had.
func (s *secrets) holds(spec release.Spec) error {
	for _, one := range spec.Secrets {
		if one.Version == 0 {
			return fault.New(fault.Refused, "secret %s was never set before the release was made", one.Name).
				Mend("set it and deploy:  ashlar secret set ENV %s", one.Name)
		}
		ok, err := s.values.Holds(one.Sealed)
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.Refused, "version %d of secret %s (%s) is not in the server's store", one.Version, one.Name, one.Sealed).
				Mend("set it and deploy:  ashlar secret set ENV %s", one.Name)
		}
	}
	return nil
}
