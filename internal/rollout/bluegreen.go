package rollout

import "time"

// Blue-green lays all new instances beside the old, lets a person look at them where
// that is declared, and moves the traffic at once. The old ones run on for a
// declared time, so that a rollback is only a switch.

// previewed is the end of the name of the service that leads to the new instances
// before the switch.
const previewed = "@preview"

func checkBlueGreen(s Strategy) string {
	for _, st := range s.Stages {
		if st.Weight != 0 {
			return "its stages have no weight: the traffic moves at once"
		}
	}
	return ""
}

// previews are the services that lead to the new instances by the preview's name.
func (d *decider) previews(r *Rollout) []Service {
	if r.stage() == nil || r.To.Strategy.Kind != BlueGreen || r.To.Strategy.Preview == "" {
		return nil
	}
	var out []Service
	for i := range r.To.Components {
		c := &r.To.Components[i]
		if c.Route == nil || c.Route.TCP != 0 {
			continue
		}
		svc := serviceOf(c)
		svc.Name, svc.Host = c.Name+previewed, r.To.Strategy.Preview
		svc.Backends = d.backends(c, Short(r.To.Release))
		out = append(out, svc)
	}
	return out
}

// keepWarm lets the old instances of a finished deploy run on.
func (d *decider) keepWarm(r *Rollout) {
	till := r.SwitchAt.Add(r.To.Strategy.Warm)
	if r.Kind != KindDeploy || r.From == nil || r.To.Strategy.Warm <= 0 || !d.now.Before(till) {
		return
	}
	warm := *r.From
	warm.Components = nil
	for _, c := range r.From.Components {
		if how(r, c.Name) == beside && !c.alone(r.From.Strategy) && c.Kind != KindJob {
			warm.Components = append(warm.Components, c)
		}
	}
	if len(warm.Components) == 0 {
		return
	}
	d.s.Warm = &Warm{Target: warm, Till: till}
	d.event(Event{Kind: "warm.kept", Release: warm.Release, Reason: "a rollback to it is only a switch until " + till.UTC().Format(time.RFC3339)})
}

// coolDown ends a warm set whose time is over.
func (d *decider) coolDown() {
	w := d.s.Warm
	if w == nil {
		return
	}
	if d.now.Before(w.Till) {
		d.wakeAt(w.Till)
		return
	}
	d.s.Warm = nil
	d.event(Event{Kind: "warm.ended", Release: w.Target.Release, Reason: "its time is over"})
}
