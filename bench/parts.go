package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/store"
)

// How often the small steps are measured.
const (
	decisions = 2000
	commits   = 200
)

// parts measures steps that every rollout takes several times: one decision, and
// one durable commit of a state with its entries of the record.
func parts(ctx context.Context, _ options, dir string, r *report) (err error) {
	state, seen, err := inFlight()
	if err != nil {
		return err
	}
	now := time.Now()
	for range decisions {
		began := time.Now()
		d := rollout.Decide(now, state, seen)
		r.add(decideTook, float64(time.Since(began))/float64(time.Microsecond))
		if d.Next.Rollout == nil || d.Next.Rollout.Step != rollout.Switching {
			return errors.New("the decision that is measured is not the one that was meant")
		}
	}
	s, err := store.Open(ctx, filepath.Join(dir, "parts.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	key := rollout.Key{App: "shop", Env: "production"}
	var version int64
	for i := range commits {
		state.Ordered = i
		entries := make([]record.Entry, 3)
		for j := range entries {
			entries[j] = record.Entry{
				Time: now, Actor: "bench", Kind: "instance.ready", App: key.App, Env: key.Env,
				Release: state.Rollout.To.Release, Instance: "shop-production-web-" + strconv.Itoa(j),
			}
		}
		began := time.Now()
		if version, err = s.Commit(ctx, key, version, state, entries); err != nil {
			return err
		}
		r.add(commitTook, ms(time.Since(began)))
	}
	return nil
}

// inFlight is a rollout of two instances whose new instances are all ready: the
// next decision switches the traffic.
func inFlight() (rollout.State, rollout.Observation, error) {
	at := time.Now()
	target := func(number int) rollout.Target {
		return rollout.Target{
			Release: digest.FromString("release" + strconv.Itoa(number)), Number: number, Platform: "local",
			Listen: "127.0.0.1:8080", Strategy: rollout.Strategy{Kind: "blue-green"},
			Components: []rollout.Component{{
				Name: "web", Spec: digest.FromString("spec" + strconv.Itoa(number)), Replicas: 2,
				Start: time.Minute, Drain: time.Minute, Grace: time.Minute, Route: &rollout.Route{Path: "/", Hold: time.Second},
			}},
		}
	}
	state := rollout.State{App: "shop", Env: "production"}
	var seen rollout.Observation
	for number := range 2 {
		q := rollout.Request{Kind: rollout.KindDeploy, To: target(number + 1), Actor: "bench"}
		next, _, err := rollout.Begin(at, state, q)
		if err != nil {
			return state, seen, err
		}
		state = next
		for range 20 {
			if number == 1 && allReady(state, seen) {
				return state, seen, nil
			}
			d := rollout.Decide(at, state, seen)
			state = d.Next
			seen = observed(at, state)
			if state.Rollout == nil {
				break
			}
		}
	}
	return state, seen, errors.New("the rollout that is measured does not get ready to switch")
}

func allReady(s rollout.State, o rollout.Observation) bool {
	return s.Rollout.Step == rollout.Laying && len(s.Instances) == 4 && len(o.Instances) == 4
}

// observed is a world in which everything that was ordered is so at once.
func observed(at time.Time, s rollout.State) rollout.Observation {
	o := rollout.Observation{Router: rollout.RouterStatus{Generation: s.Table.Generation, InFlight: map[string]int{}}}
	for _, i := range s.Instances {
		if !i.StopAt.IsZero() {
			continue
		}
		o.Instances = append(o.Instances, rollout.Observed{
			ID: i.ID, Component: i.Component, Release: i.Release, Spec: i.Spec, Phase: rollout.Ready,
			Address: "10.0.0.1:8080", StartedAt: at,
		})
	}
	return o
}
