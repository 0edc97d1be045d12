package rollout

import (
	"fmt"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// A schema contract is what each release says of the data that it shares with the
// others: which versions of a schema its program can read, which it writes, and
// which its migration leaves. State.Data remembers which version the data may have.

// contract says why a release cannot take the place of the current one: it could not
// read the data as it is, or the current one could not read it afterwards, while
// both serve or when it has to come back.
func contract(s State, q Request) error {
	for i := range q.To.Components {
		to := &q.To.Components[i]
		from := s.Current.named(to.Name)
		for _, schema := range to.Schemas {
			if what := unreadable(s, from, to, schema, q.Kind); what != "" {
				return fault.New(fault.Refused, "component %s, schema %s: %s", to.Name, schema.Name, what).
					At(s.App + "/" + s.Env).Mend("go by a release that reads both versions, or force it with --force --reason")
			}
		}
	}
	return nil
}

// unreadable says which data one side could not read; empty: none.
func unreadable(s State, from, to *Component, schema Schema, kind string) string {
	if at, known := s.Data[schema.Name]; known && schema.Leaves == 0 && !schema.reads(at) && !undone(from, to, kind) {
		return fmt.Sprintf("the data has version %d and it reads %d to %d", at, schema.Min, schema.Max)
	}
	if from == nil || kind == KindRollback || undone(to, to, KindRollback) {
		return ""
	}
	for _, old := range from.Schemas {
		switch {
		case old.Name != schema.Name:
		case schema.Leaves != 0 && !old.reads(schema.Leaves):
			return fmt.Sprintf("its migration leaves version %d and the current release, which has to be able to come back, reads %d to %d", schema.Leaves, old.Min, old.Max)
		case !old.reads(schema.Writes):
			return fmt.Sprintf("it writes version %d and the current release, which has to be able to come back, reads %d to %d", schema.Writes, old.Min, old.Max)
		}
	}
	return ""
}

// undone says whether a rollback undoes what the left component did to the data.
func undone(left, to *Component, kind string) bool {
	if left == nil || kind != KindRollback {
		return false
	}
	for _, h := range left.Hooks {
		if h.When == HookRollback {
			return true
		}
	}
	return false
}

func (s Schema) reads(version int) bool { return s.Min <= version && version <= s.Max }

// migrated notes what a hook that ended well has left of the data.
func (d *decider) migrated(r *Rollout, o *Order) {
	side := &r.To
	if o.Hook == HookRollback {
		if side = r.From; r.Kind == KindRollback {
			side = &r.To
		}
	}
	c := side.named(o.Component)
	if c == nil {
		return
	}
	for _, schema := range c.Schemas {
		switch {
		case o.Hook == HookBefore && schema.Leaves != 0:
			d.s.Data = with(d.s.Data, schema.Name, schema.Leaves)
		case o.Hook == HookRollback:
			d.s.Data = with(d.s.Data, schema.Name, schema.Writes)
		}
	}
}

// written notes what a release that serves may write.
func (d *decider) written(t *Target) {
	for _, c := range t.Components {
		for _, schema := range c.Schemas {
			if at, known := d.s.Data[schema.Name]; !known || at < schema.Writes {
				d.s.Data = with(d.s.Data, schema.Name, schema.Writes)
			}
		}
	}
}
