package rollout

import (
	"time"

	"github.com/ashlar-infra/ashlar/internal/gate"
)

// A job is a component that runs to its end at its times, one instance at a time. A
// time that passes while one still runs is passed over; one that passed while nobody
// was there to see is made up for, once.

// schedule orders the jobs of the current release that are due.
func (d *decider) schedule() {
	t := d.s.Current
	if t == nil {
		return
	}
	for i := range t.Components {
		c := &t.Components[i]
		if c.Kind != KindJob {
			continue
		}
		j := d.s.Jobs[c.Name]
		switch {
		case j.Next.IsZero() || j.Schedule != c.Schedule:
			d.plan(c, j, "job.planned")
		case d.now.Before(j.Next):
		case d.runs(c.Name):
			d.plan(c, j, "job.passed-over")
		case d.mayJoin(want{Component: *c, alone: true}): // what it was before its kind changed is gone
			d.orderJob(c, t)
			d.plan(c, j, "")
		default:
			continue
		}
		d.wakeAt(d.s.Jobs[c.Name].Next)
	}
}

// plan sets when a job runs next.
func (d *decider) plan(c *Component, j Job, event string) {
	s, err := gate.ParseSchedule(c.Schedule)
	if err != nil { // check refuses it: an old state may have it
		j.Next = d.now.Add(24 * time.Hour)
	} else {
		j.Next = s.Next(d.now)
	}
	j.Schedule = c.Schedule
	d.s.Jobs = with(d.s.Jobs, c.Name, j)
	if event != "" {
		d.event(Event{Kind: event, Release: d.s.Current.Release, Data: map[string]string{"component": c.Name, "next": j.Next.UTC().Format(time.RFC3339)}})
	}
}

// runs says whether an instance of a job is there.
func (d *decider) runs(job string) bool {
	for i := range d.s.Instances {
		if o := &d.s.Instances[i]; o.Component == job && o.Hook == HookSchedule {
			return true
		}
	}
	return false
}

func (d *decider) orderJob(c *Component, t *Target) {
	o := Order{
		Instance:  Instance{ID: d.newID(c.Name), Component: c.Name, Release: t.Release, Spec: c.Spec, Hook: HookSchedule},
		OrderedAt: d.now, Grace: c.Grace, Volumes: c.Volumes,
	}
	d.add(o)
	d.event(Event{Kind: "hook.ordered", Instance: o.ID, Release: o.Release, Data: o.holds(map[string]string{"component": c.Name, "when": HookSchedule})})
}

// scheduled notes how a job ended.
func (d *decider) scheduled(o *Order, f *Failure) {
	j := d.s.Jobs[o.Component]
	j.Last = &HookRun{Instance: o.ID, StartedAt: o.OrderedAt, EndedAt: d.now, Failure: f}
	d.s.Jobs = with(d.s.Jobs, o.Component, j)
}

// endJobs lets go the jobs that a target does not have.
func (d *decider) endJobs(t *Target, why string) {
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		if c := t.named(o.Component); o.Hook == HookSchedule && !o.Leaving && (c == nil || c.Kind != KindJob) {
			d.leave(o, why)
		}
	}
	for name := range d.s.Jobs {
		if c := t.named(name); c == nil || c.Kind != KindJob {
			d.s.Jobs = without(d.s.Jobs, name)
		}
	}
}
