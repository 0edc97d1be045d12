package rollout

import (
	"fmt"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A schema contract is what each release says of the data that it shares with the
// others: which versions of a schema its program can read, which it writes, and
// which its migration leaves. Every program that meets the data has to read it: of the
// release before, which serves beside the new one and may have to come back, of the new one, and of
// other components with the same schema. A hook on rollback changes nothing of that,
// as it runs when the previous release serves again.
//
// State.Data remembers the version that the data may have, and State.Least the lowest
// that it may have instead: a migration may have failed half-way, a program that was put back
// may have written or not.

// contract says why a release cannot take the place of the current one: somebody
// could not read the data.
func contract(s State, q Request) error {
	for i := range q.To.Components {
		to := &q.To.Components[i]
		for _, schema := range to.Schemas {
			if what := unreadable(s, &q.To, schema, q.Kind); what != "" {
				return fault.New(fault.Refused, "component %s, schema %s: %s", to.Name, schema.Name, what).
					At(s.App + "/" + s.Env).Mend("go by a release that reads both versions, or force it with --force --reason")
			}
		}
	}
	return nil
}

// unreadable says which data a component of the target, or another for its sake, could
// not read; empty: none.
func unreadable(s State, to *Target, schema Schema, kind string) string {
	for _, at := range s.found(schema.Name, to) {
		if !schema.reads(at) {
			return fmt.Sprintf("the data has version %d and it reads %d to %d", at, schema.Min, schema.Max)
		}
	}
	if what := schema.shuts(to, "component %s of the same release"); what != "" {
		return what
	}
	if kind == KindRollback || s.Current == nil {
		return ""
	}
	return schema.shuts(s.Current, "%.0sthe current release, which has to be able to come back,")
}

// found lists the versions of a schema that the programs of a target may find, once
// its migrations have run.
func (s State) found(name string, to *Target) []int {
	high, known := s.Data[name]
	if !known {
		return nil
	}
	versions := []int{high}
	if low, doubt := s.Least[name]; doubt {
		versions = []int{low, high}
	}
	leaves := 0
	for _, c := range to.Components {
		for _, schema := range c.Schemas {
			if schema.Name == name {
				leaves = max(leaves, schema.Leaves)
			}
		}
	}
	for i := range versions {
		versions[i] = max(versions[i], leaves)
	}
	return versions
}

// shuts says which version the schema's owner brings that a component of a target
// cannot read; who tells of that component. Empty: there is none.
func (x Schema) shuts(t *Target, who string) string {
	for _, c := range t.Components {
		for _, other := range c.Schemas {
			switch {
			case other.Name != x.Name:
			case x.Leaves != 0 && !other.reads(x.Leaves):
				return fmt.Sprintf("its migration leaves version %d and "+who+" reads %d to %d", x.Leaves, c.Name, other.Min, other.Max)
			case !other.reads(x.Writes):
				return fmt.Sprintf("it writes version %d and "+who+" reads %d to %d", x.Writes, c.Name, other.Min, other.Max)
			}
		}
	}
	return ""
}

func (x Schema) reads(version int) bool { return x.Min <= version && version <= x.Max }

// raised notes that the data may have a version from now on, and may still have the one
// before.
func (d *decider) raised(schema string, to int) {
	at, known := d.s.Data[schema]
	if known && at >= to {
		return
	}
	if _, doubt := d.s.Least[schema]; known && !doubt {
		d.s.Least = with(d.s.Least, schema, at)
	}
	d.s.Data = with(d.s.Data, schema, to)
}

// settled notes that the data has a version, unless it may have a newer one.
func (d *decider) settled(schema string, at int) {
	if have, known := d.s.Data[schema]; known && have > at {
		return
	}
	d.s.Data = with(d.s.Data, schema, at)
	d.s.Least = without(d.s.Least, schema)
}

// writes notes what a program that is about to start may write, and a hook may leave.
func (d *decider) writes(c *Component, hook string) {
	for _, schema := range c.Schemas {
		switch {
		case hook == "":
			d.raised(schema.Name, schema.Writes)
		case hook == HookBefore && schema.Leaves != 0:
			d.raised(schema.Name, schema.Leaves)
		}
	}
}

// migrated notes what a hook that ended well has left of the data: that on rollback of
// a release that is put back leaves it as it was before.
func (d *decider) migrated(r *Rollout, o *Order) {
	if o.Hook == HookRollback {
		d.undone(r, o.Component)
		return
	}
	c := r.To.named(o.Component)
	if c == nil || o.Hook != HookBefore {
		return
	}
	for _, schema := range c.Schemas {
		if schema.Leaves != 0 {
			d.settled(schema.Name, schema.Leaves)
		}
	}
}

func (d *decider) undone(r *Rollout, component string) {
	left, to := &r.To, r.From
	if r.Kind == KindRollback {
		left, to = r.From, &r.To
	}
	c := left.named(component)
	if c == nil {
		return
	}
	for _, schema := range c.Schemas {
		if at, known := r.Data[schema.Name]; known && r.Kind != KindRollback {
			d.s.Data = with(d.s.Data, schema.Name, at)
			d.s.Least = without(d.s.Least, schema.Name)
			if low, doubt := r.Least[schema.Name]; doubt {
				d.s.Least = with(d.s.Least, schema.Name, low)
			}
			continue
		}
		if low, known := to.writes(schema.Name); known && low < d.s.Data[schema.Name] {
			d.s.Least = with(d.s.Least, schema.Name, low)
		}
	}
}

// writes is the lowest version of a schema that the target writes.
func (t *Target) writes(schema string) (low int, known bool) {
	if t == nil {
		return 0, false
	}
	for _, c := range t.Components {
		for _, x := range c.Schemas {
			if x.Name == schema && (!known || x.Writes < low) {
				low, known = x.Writes, true
			}
		}
	}
	return low, known
}

// written notes what a release that serves writes.
func (d *decider) written(t *Target) {
	for _, c := range t.Components {
		for _, schema := range c.Schemas {
			d.settled(schema.Name, schema.Writes)
		}
	}
}
