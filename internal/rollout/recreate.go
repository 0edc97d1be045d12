package rollout

import "slices"

// Instances that may not run beside each other are replaced: the old one leaves the
// routes, where requests are held meanwhile, drains, ends and is observed gone; only
// then is the new one ordered. The same path leads back.

// displaced says whether a component of the old target has to make room for the new
// one: its own successor has its turn, or one that takes a volume that it holds.
func (d *decider) displaced(r *Rollout, c *Component) bool {
	if how(r, c.Name) == replaced && d.reached(r, c.Name) {
		return true
	}
	for i := range r.To.Components {
		if to := &r.To.Components[i]; to.Name != c.Name && shareVolume(to.Volumes, c.Volumes) && d.reached(r, to.Name) {
			return true
		}
	}
	return false
}

// mayJoin says whether one more instance of a want may be ordered beside what is
// there: always, unless it may not run beside others.
func (d *decider) mayJoin(w want) bool {
	if !w.alone {
		return true
	}
	same := 0
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		switch {
		case shareVolume(o.Volumes, w.Volumes):
			return false
		case o.Component != w.Name:
		case o.Spec != w.Spec:
			return false // also one of a hook: its turn is before
		default:
			same++ // one that leaves counts until it is gone
		}
	}
	return same < w.Replicas
}

// outlived says whether an instance of another spec is still there that no other of its
// component may run beside: it was ordered for a release that was superseded.
func (d *decider) outlived(w want) bool {
	return slices.ContainsFunc(d.s.Instances, func(o Order) bool { return o.Alone && o.Component == w.Name && o.Spec != w.Spec })
}

func shareVolume(a, b []string) bool {
	return slices.ContainsFunc(a, func(v string) bool { return slices.Contains(b, v) })
}
