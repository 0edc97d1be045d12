package api

import (
	"context"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func (s *Server) addRelease(ctx context.Context, r request) (AddedRelease, error) {
	rel, err := release.Parse(r.body)
	if err != nil {
		return AddedRelease{}, err
	}
	stored, err := s.Engine.AddRelease(ctx, s.Now(), r.actor, rel)
	return AddedRelease{App: stored.App, ReleaseRef: refOf(stored)}, err
}

func refOf(s engine.Stored) ReleaseRef { return ReleaseRef{Number: s.Number, Digest: s.Digest} }

func (s *Server) release(ctx context.Context, r request) (Release, error) {
	app := r.query.Get("app")
	if app == "" {
		return Release{}, missing("app")
	}
	stored, err := s.Engine.FindRelease(ctx, app, r.query.Get("release"))
	if err != nil {
		return Release{}, err
	}
	rel, err := release.Parse(stored.Doc)
	return Release{ReleaseRef: refOf(stored), Created: stored.Created, Collected: stored.Collected, Release: rel}, err
}

func (s *Server) ahead(_ context.Context, r request) (struct{}, error) {
	var q AheadRequest
	if err := r.into(&q); err != nil {
		return struct{}{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err == nil {
		s.Ahead(key, nil)
	}
	return struct{}{}, err
}

// beginner puts a rollout in flight.
type beginner func(ctx context.Context, actor string, key engine.Key, q BeginRequest) (engine.Begun, error)

func (s *Server) deploy(ctx context.Context, r request) (Begun, error) {
	return s.begin(ctx, r, func(ctx context.Context, actor string, key engine.Key, q BeginRequest) (engine.Begun, error) {
		stored, err := s.Engine.FindRelease(ctx, key.App, q.Release)
		if err != nil {
			return engine.Begun{}, err
		}
		return s.Engine.Deploy(ctx, s.Now(), actor, key, stored.Digest, q.options())
	})
}

func (s *Server) rollback(ctx context.Context, r request) (Begun, error) {
	return s.begin(ctx, r, func(ctx context.Context, actor string, key engine.Key, q BeginRequest) (engine.Begun, error) {
		return s.Engine.Rollback(ctx, s.Now(), actor, key, q.Release, q.options())
	})
}

func (s *Server) down(ctx context.Context, r request) (Begun, error) {
	return s.begin(ctx, r, func(ctx context.Context, actor string, key engine.Key, q BeginRequest) (engine.Begun, error) {
		return s.Engine.Down(ctx, s.Now(), actor, key, q.Reason)
	})
}

// begin holds garbage collection off from the check that everything is on hand
// until the rollout is in the record, which keeps the release from then on.
func (s *Server) begin(ctx context.Context, r request, f beginner) (Begun, error) {
	var q BeginRequest
	if err := r.into(&q); err != nil {
		return Begun{}, err
	}
	key, err := keyOf(q.App, q.Env)
	if err != nil {
		return Begun{}, err
	}
	unhold, err := s.Hold(ctx)
	if err != nil {
		return Begun{}, err
	}
	defer unhold()
	index, _, err := s.Store.Head(ctx)
	if err != nil {
		return Begun{}, err
	}
	begun, err := f(ctx, r.actor, key, q)
	return Begun{Rollout: begun.Rollout, Queued: begun.Queued, Index: index}, err
}

func (s *Server) environments(ctx context.Context, _ request) ([]Environment, error) {
	keys, err := s.Store.Environments(ctx)
	if err != nil {
		return nil, err
	}
	list := []Environment{}
	for _, key := range keys {
		state, _, err := s.Store.State(ctx, key)
		if err != nil {
			return nil, err
		}
		e := Environment{App: key.App, Env: key.Env, Rollout: state.Rollout, Last: state.LastResult, Rollouts: state.Rollouts, URL: urlOf(state)}
		if c := state.Current; c != nil {
			e.Current = &ReleaseRef{Number: c.Number, Digest: c.Release}
		}
		for _, o := range state.Instances {
			if !o.Leaving {
				e.Running++
			}
		}
		list = append(list, e)
	}
	return list, nil
}

func (s *Server) status(ctx context.Context, r request) (Status, error) {
	key, err := r.key()
	if err != nil {
		return Status{}, err
	}
	now := s.Now()
	st, err := s.Engine.Status(ctx, now, key)
	if err != nil {
		return Status{}, err
	}
	if s.Troubles != nil {
		st.Problems = append(st.Problems, s.Troubles(key)...)
	}
	out := Status{Status: st, URL: urlOf(st.State), Now: now, Releases: map[digest.Digest]int{}}
	for _, d := range mentioned(st.State) {
		if ref := s.refOf(ctx, d); ref.Number > 0 {
			out.Releases[d] = ref.Number
		}
	}
	if c := st.State.Current; c != nil {
		out.Number = c.Number
	}
	return out, nil
}

// mentioned lists the releases that a status speaks of by digest alone.
func mentioned(s rollout.State) []digest.Digest {
	list := []digest.Digest{s.RollbackTo()}
	for _, o := range s.Instances {
		list = append(list, o.Release)
	}
	if s.Readiness != nil {
		list = append(list, s.Readiness.Release)
	}
	if s.LastResult != nil {
		list = append(list, s.LastResult.Release)
	}
	for d := range s.Quarantine {
		list = append(list, d)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return slices.DeleteFunc(list, func(d digest.Digest) bool { return d == "" })
}

func (s *Server) history(ctx context.Context, r request) (History, error) {
	app, env := r.query.Get("app"), r.query.Get("env")
	if app == "" {
		return History{}, missing("app")
	}
	stored, err := s.Store.Releases(ctx, app)
	if err != nil {
		return History{}, err
	}
	keys, err := s.Store.Environments(ctx)
	if err != nil {
		return History{}, err
	}
	h := History{App: app, Releases: []HistoryRelease{}, Rollouts: []HistoryRollout{}}
	for _, rel := range stored {
		h.Releases = append(h.Releases, HistoryRelease{ReleaseRef: refOf(rel), Created: rel.Created, Collected: rel.Collected})
	}
	for _, key := range keys {
		if key.App != app || env != "" && key.Env != env {
			continue
		}
		state, _, err := s.Store.State(ctx, key)
		if err != nil {
			return History{}, err
		}
		entries, err := s.Store.Entries(ctx, key, 0, -1)
		if err != nil {
			return History{}, err
		}
		h.place(state)
		h.Rollouts = append(h.Rollouts, rollouts(entries)...)
	}
	h.sort()
	return h, nil
}

func (s *Server) entries(ctx context.Context, r request, emit func(entry) error) error {
	q := r.query
	key := engine.Key{App: q.Get("app"), Env: q.Get("env")}
	from, err := integer(q, "from", 0)
	if err != nil {
		return err
	}
	to, err := integer(q, "to", -1)
	if err != nil {
		return err
	}
	if q.Get("follow") == "true" {
		return s.follow(ctx, key, from, emit)
	}
	list, err := s.Store.Entries(ctx, key, from, to)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := emit(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) output(ctx context.Context, r request, emit func(OutputLine) error) error {
	key, err := r.key()
	if err != nil {
		return err
	}
	tail, err := integer(r.query, "tail", -1)
	if err != nil {
		return err
	}
	if state, _, err := s.Store.State(ctx, key); err != nil {
		return err
	} else if state.App == "" {
		return fault.New(fault.NotFound, "nothing was ever deployed to %s", key).Mend("list what there is:  ashlar status")
	}
	return s.Output(ctx, OutputQuery{
		App: key.App, Env: key.Env, Component: r.query.Get("component"), Instance: r.query.Get("instance"),
		Tail: int(tail), Follow: r.query.Get("follow") == "true",
	}, emit)
}

func (s *Server) verifyLog(ctx context.Context, _ request) (record.Report, error) {
	return s.VerifyLog(ctx)
}

func (s *Server) gc(ctx context.Context, r request) (GCReport, error) {
	var q GCRequest
	if err := r.into(&q); err != nil {
		return GCReport{}, err
	}
	if q.Keep < 0 {
		return GCReport{}, fault.New(fault.Invalid, "keep is %d; it must be 1 or more", q.Keep)
	}
	return s.GC(ctx, r.actor, q)
}

func (s *Server) doctor(ctx context.Context, _ request) ([]Check, error) { return s.Doctor(ctx), nil }

func (s *Server) version(context.Context, request) (Version, error) { return s.Version(), nil }

func (s *Server) end(_ context.Context, r request) (Version, error) {
	var q EndRequest
	if err := r.into(&q); err != nil {
		return Version{}, err
	}
	s.End(r.actor, q)
	return s.Version(), nil
}

func (r request) key() (engine.Key, error) { return keyOf(r.query.Get("app"), r.query.Get("env")) }

func keyOf(app, env string) (engine.Key, error) {
	switch {
	case app == "":
		return engine.Key{}, missing("app")
	case env == "":
		return engine.Key{}, missing("env")
	}
	return engine.Key{App: app, Env: env}, nil
}

func missing(name string) error {
	return fault.New(fault.Invalid, "the request names no %s", name)
}

func integer(q url.Values, name string, otherwise int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%s is %q, not a number", name, text)
	}
	return n, nil
}
