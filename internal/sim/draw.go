package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// behaviours of a program, the good one more often than the others.
var behaviours = []string{
	"good", "good", "good", "good", "good", "slow", "exits", "never-ready", "flaps", "refused", "stubborn", "errs", "lags",
}

// drawEnvs gives the environments of a world: mostly one, sometimes two that releases
// are promoted between, or those of two applications.
func (w *world) drawEnvs() []rollout.Key {
	envs := []rollout.Key{{App: "app", Env: "production"}, {App: "app", Env: "staging"}, {App: "other", Env: "production"}}
	return envs[:1+max(w.rng.IntN(4)-1, 0)]
}

// draw makes a release of an application: up to four components, each of some kind
// and behaving somehow, and for each environment some way for it to take the place of the
// one before.
func (w *world) draw(app string, made *int) release.Release {
	*made++
	components := w.drawComponents(*made)
	rel := release.Release{Schema: release.Schema, App: app, Environments: map[string]release.Environment{}}
	for _, key := range w.envs {
		if key.App == app {
			rel.Environments[key.Env] = release.Environment{
				Platform: "sim", Rollout: w.drawRollout(), Listen: "127.0.0.1:80", Keep: 3, Components: components,
				Volumes: map[string]release.Volume{"data": {Mode: release.VolumeExclusive}, "files": {Mode: release.VolumeShared}},
			}
		}
	}
	return rel
}

func (w *world) drawComponents(made int) map[string]release.Component {
	out := map[string]release.Component{}
	for i, name := range []string{"api", "web", "worker", "db"}[:1+w.rng.IntN(4)] {
		version := 0
		if w.rng.IntN(3) > 0 {
			version = made
		}
		c := w.drawComponent(i, name, version)
		for before := range out {
			if before < name && (before + name)[len(before)%2] == 'a' { // some need others, in no circle
				c.Needs = append(c.Needs, before)
			}
		}
		slices.Sort(c.Needs)
		if w.chance(0.02) {
			w.missing[c.Spec.Tree] = version > 0
		}
		out[name] = c
	}
	if w.rng.IntN(6) == 0 {
		c := w.drawComponent(9, "cron", 0)
		c.Kind, c.Schedule, c.Replicas, c.Route, c.Hooks, c.Spec.Health, c.Spec.Port = release.KindJob, "* * * * *", 1, nil, nil, nil, 0
		c.Spec.Kind = c.Kind
		c.Spec.Command = []string{"/hook", "ok"}
		out["cron"] = c
	}
	return out
}

// drawKind makes a component one without a route, of some kind.
func (w *world) drawKind(c *release.Component) {
	c.Kind = []string{release.KindWorker, release.KindSingleton, release.KindWorker, release.KindSingleton, "", release.KindJob}[w.rng.IntN(6)]
	c.Spec.Kind = c.Kind
	switch c.Kind {
	case release.KindSingleton:
		c.Replicas = 1
	case release.KindJob:
		c.Schedule, c.Replicas, c.Spec.Health, c.Spec.Port = "* * * * *", 1, nil, 0
		c.Spec.Command = []string{"/hook", "ok"}
	}
}

// trees are the trees of a release's components.
func trees(rel release.Release) []digest.Digest {
	var out []digest.Digest
	for _, env := range rel.Environments {
		for _, c := range env.Components {
			out = append(out, c.Spec.Tree)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (w *world) drawRollout() release.Rollout {
	ms := func(most int) int64 { return int64(w.rng.IntN(most)) * 1000 }
	r := release.Rollout{Strategy: []string{"blue-green", "canary", "rolling", "recreate"}[w.rng.IntN(4)], DeadlineMS: 20_000 + ms(40)}
	switch r.Strategy {
	case "blue-green":
		if w.rng.IntN(3) == 0 {
			r.Preview, r.Approve = "next.example", w.rng.IntN(2) == 0
		}
		if w.rng.IntN(3) == 0 {
			r.WarmMS = ms(30)
		}
	case "canary":
		for weight := 1 + w.rng.IntN(60); weight < 100; weight += 5 + w.rng.IntN(60) {
			r.Steps = append(r.Steps, release.Step{Weight: weight, PauseMS: ms(6), Approve: w.rng.IntN(5) == 0})
		}
		r.Steps = append(r.Steps, release.Step{Weight: 100})
		if w.rng.IntN(3) == 0 {
			r.Match, r.Sticky = &release.Match{Cookie: "beta", Value: "yes"}, "ashlar"
		}
	case "rolling":
		r.Surge, r.Unavailable, r.Batch = w.rng.IntN(3), w.rng.IntN(2), w.rng.IntN(3)
		if r.Surge+r.Unavailable == 0 {
			r.Surge = 1
		}
	}
	if w.rng.IntN(2) == 0 {
		r.BakeMS = ms(12)
	}
	if r.Strategy == "canary" && w.rng.IntN(2) == 0 || r.BakeMS > 0 && w.rng.IntN(4) == 0 {
		r.Analysis = &release.Analysis{Requests: 5 + w.rng.IntN(10), Errors: "10", Slower: "4", Quantile: 900, WindowMS: 15_000}
		if w.rng.IntN(2) == 0 {
			r.Analysis.Prometheus, r.Analysis.Queries = "http://127.0.0.1:9090", []release.Query{query}
		}
	}
	if w.rng.IntN(4) == 0 {
		r.Freeze = []release.Window{{From: "00:00", To: "00:01", Zone: "UTC"}}
		if w.rng.IntN(2) == 0 {
			r.Freeze = []release.Window{{Days: []string{"tue"}, From: "00:01", To: "00:02", Zone: "UTC"}}
		}
	}
	r.Queue = []string{"", release.QueueRefuse, release.QueueSerialise, release.QueueCoalesce, release.QueueVerify}[w.rng.IntN(5)]
	return r
}

// drawComponent makes one component. What a version is follows from its number alone,
// so that one that comes again is the same.
func (w *world) drawComponent(i int, name string, version int) release.Component {
	behaviour := "good"
	if version > 0 {
		behaviour = behaviours[w.rng.IntN(len(behaviours))]
	}
	c := release.Component{
		Spec: release.Spec{
			Artifact: digest.FromString("artifact " + name), Tree: digest.FromString(fmt.Sprint("tree ", name, version)),
			Settings: digest.FromString("settings"), Command: []string{"/" + name}, WorkDir: "/", UID: 1000, GID: 1000, Port: 80,
			Env: map[string]string{"behaviour": behaviour, "VERSION": fmt.Sprint(version)}, StopSignal: "SIGTERM", StopGraceMS: 5000,
			Health: &release.Health{HTTP: "/", IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 1, StartMS: 10_000},
		},
		Replicas: 1 + w.rng.IntN(3), DrainMS: int64(w.rng.IntN(5)) * 1000,
	}
	switch name {
	case "worker":
		w.drawKind(&c) // also where nothing else of it changes
	case "db":
		c.Replicas = 1
		c.Spec.Volumes = []release.Mount{{Path: "/data", Volume: "data", Mode: release.VolumeExclusive}}
		c.Route = &release.Route{TCP: 5432, HoldMS: 1000}
	default:
		c.Route = &release.Route{Path: "/" + fmt.Sprint(i), HoldMS: 1000}
	}
	if version > 0 {
		w.vary(&c)
	}
	hook := func(when string) {
		does := []string{"ok", "ok", "ok", "ok", "fails", "hangs"}[w.rng.IntN(6)]
		c.Hooks = append(c.Hooks, release.Hook{When: when, Command: []string{"/hook", does, when}, TimeoutMS: 3000})
	}
	if version > 0 && w.rng.IntN(5) == 0 {
		hook(release.HookBefore)
		if name != "db" && w.rng.IntN(2) == 0 {
			hook(release.HookAfter)
			hook(release.HookRollback)
		}
	}
	return c
}

// vary gives a component what not every one has: a shared volume, drain times of its own
// for kinds of connections, a contract for its data.
func (w *world) vary(c *release.Component) {
	if w.rng.IntN(4) == 0 {
		c.Spec.Volumes = append(c.Spec.Volumes, release.Mount{Path: "/files", Volume: "files", Mode: release.VolumeShared})
	}
	if c.Route == nil {
		return
	}
	ms := func() int64 { return int64(w.rng.IntN(8)) * 1000 }
	switch {
	case w.rng.IntN(3) > 0:
	case c.Route.TCP != 0:
		c.Route.Drains = &release.Drains{TCPMS: ms()}
	default:
		c.Route.Drains = &release.Drains{RequestMS: ms(), WebSocketMS: ms(), StreamMS: ms(), GRPCMS: ms()}
	}
	if c.Route.TCP == 0 && w.rng.IntN(3) == 0 {
		if w.rng.IntN(3) == 0 {
			w.schema++
		}
		s := release.DataSchema{Name: "data", Writes: w.schema + w.rng.IntN(2)}
		s.Reads = release.Range{Min: max(1, s.Writes-w.rng.IntN(3)), Max: s.Writes + w.rng.IntN(2)}
		if w.rng.IntN(2) == 0 {
			s.Leaves = s.Writes
			c.Hooks = append(c.Hooks, release.Hook{When: release.HookBefore, Command: []string{"/hook", "ok", "migrate"}, TimeoutMS: 3000})
		}
		c.Schemas = []release.DataSchema{s}
	}
}

func describe(rel release.Release, key rollout.Key) string {
	var parts []string
	env := rel.Environments[key.Env]
	for _, name := range slices.Sorted(maps.Keys(env.Components)) {
		c := env.Components[name]
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s×%d v%s %s %s", name, c.Replicas, c.Spec.Env["VERSION"], c.Spec.Env["behaviour"], c.Kind)))
	}
	return env.Rollout.Strategy + " [" + strings.Join(parts, ", ") + "]"
}
