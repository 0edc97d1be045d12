package sim

import (
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// data is what the programs of one environment keep in common, such as a database: it
// has one version, which migrations raise, and programs when they start.
type data struct {
	version int
	before  map[digest.Digest]int // by release that changed it: the version that its hook on rollback leads back to
	excused bool                  // somebody forced a release past its contract, or the way back failed
}

// schemaOf is what the unit's program knows of its data; nil: it has none.
func (w *world) schemaOf(u *unit) *release.DataSchema {
	schemas := w.releases[u.Release].Environments[u.env.Env].Components[u.Component].Schemas
	if len(schemas) == 0 {
		return nil
	}
	return &schemas[0]
}

func (w *world) dataOf(env rollout.Key) *data {
	d := w.data[env]
	if d == nil {
		d = &data{before: map[digest.Digest]int{}}
		w.data[env] = d
	}
	return d
}

// begin has a unit write its data when it starts.
func (w *world) begin(u *unit) {
	if schema := w.schemaOf(u); schema != nil && u.Hook == "" {
		if d := w.dataOf(u.env); schema.Writes > d.version {
			w.alter(d, u.Release, schema.Writes)
		}
	}
}

// use has a unit read its data, as it does with every request.
func (w *world) use(u *unit) {
	schema := w.schemaOf(u)
	if schema == nil {
		return
	}
	d := w.dataOf(u.env)
	if d.version != 0 && (d.version < schema.Reads.Min || d.version > schema.Reads.Max) && !d.excused {
		w.violate("schema", "%s reads the versions %d to %d and its data has version %d", u.ID, schema.Reads.Min, schema.Reads.Max, d.version)
	}
}

// migrate is what a hook that ended well does to the data.
func (w *world) migrate(u *unit) {
	schema := w.schemaOf(u)
	if schema == nil {
		return
	}
	d := w.dataOf(u.env)
	switch {
	case u.exitCode != 0:
		d.excused = d.excused || u.Hook == rollout.HookRollback
	case u.Hook == rollout.HookBefore && schema.Leaves > d.version:
		w.alter(d, u.Release, schema.Leaves)
	case u.Hook == rollout.HookRollback:
		if was, changed := d.before[u.Release]; changed {
			w.tell("world: %s takes its data back from version %d to %d", u.ID, d.version, was)
			d.version = was
			delete(d.before, u.Release)
		}
	}
}

func (w *world) alter(d *data, by digest.Digest, version int) {
	if _, changed := d.before[by]; !changed {
		d.before[by] = d.version
	}
	w.tell("world: release %s takes its data from version %d to %d", rollout.Short(by), d.version, version)
	d.version = version
}
