package rollout

// scheduled notes how a job at its time ended.
func (d *decider) scheduled(o *Order, f *Failure) {
	j := d.s.Jobs[o.Component]
	j.Last = &HookRun{Instance: o.ID, StartedAt: o.OrderedAt, EndedAt: d.now, Failure: f}
	d.s.Jobs = with(d.s.Jobs, o.Component, j)
}
