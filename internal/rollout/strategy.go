package rollout

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/gate"
)

// method is how one component gets from one target to the next, which follows from
// the strategy and from what the component is.
type method int

const (
	carried  method = iota // its instances stay
	beside                 // all new ones start beside the old; the traffic moves afterwards
	rolled                 // a few at a time
	replaced               // the old end before the new start
)

// how says how a component of a rollout's target takes the place of the old one.
func how(r *Rollout, name string) method {
	from, to := r.From.named(name), r.To.named(name)
	switch {
	case from == nil || to == nil:
		return beside
	case from.Spec == to.Spec || to.Kind == KindJob:
		return carried
	case to.alone(r.To.Strategy) || from.alone(Strategy{}):
		return replaced
	case r.To.Strategy.Kind == Rolling && from.Kind != KindJob:
		return rolled
	default:
		return beside
	}
}

// wavesOf lists the components that a rollout changes in the order in which they
// have their turn: those needed first, and of those that may, instances that start
// beside the old before such that replace them, so that as much as possible has
// proven itself before anything is taken away.
func wavesOf(r *Rollout) [][]string {
	var left []string
	for _, c := range r.To.Components {
		if from := r.From.named(c.Name); c.Kind != KindJob && (from == nil || from.Spec != c.Spec) {
			left = append(left, c.Name)
		}
	}
	var out [][]string
	for len(left) > 0 {
		may := slices.DeleteFunc(slices.Clone(left), func(name string) bool {
			return slices.ContainsFunc(r.To.named(name).Needs, func(need string) bool { return need != name && slices.Contains(left, need) })
		})
		if len(may) == 0 {
			may = left // they need each other: check refuses that, an old state may still have it
		}
		gentle := slices.DeleteFunc(slices.Clone(may), func(name string) bool { return how(r, name) == replaced })
		if len(gentle) > 0 {
			may = gentle
		}
		out = append(out, may)
		left = slices.DeleteFunc(slices.Clone(left), func(name string) bool { return slices.Contains(may, name) })
	}
	return out
}

// turns are the waves of the rollout in flight that have had their turn or have it.
func (d *decider) turns(r *Rollout) [][]string {
	if d.waves == nil {
		d.waves = wavesOf(r)
	}
	return d.waves[:min(r.Wave+1, len(d.waves))]
}

// reached says whether a component of the target has its turn or had it.
func (d *decider) reached(r *Rollout, name string) bool {
	return how(r, name) == carried || slices.ContainsFunc(d.turns(r), func(wave []string) bool { return slices.Contains(wave, name) })
}

// check says why a request cannot be fulfilled, whatever is observed.
func check(s State, q Request) error {
	if q.Kind == KindDown {
		return nil
	}
	st, where := q.To.Strategy, s.App+"/"+s.Env
	var bad string
	switch st.Kind {
	case BlueGreen:
		bad = checkBlueGreen(st)
	case Rolling:
		bad = checkRolling(st)
	case Canary:
		bad = checkCanary(st)
	case Recreate:
	default:
		return fault.New(fault.Invalid, "strategy %q is not known", st.Kind).At(where).
			Detail("known: blue-green, rolling, canary, recreate").Mend("write  strategy: blue-green")
	}
	if bad != "" {
		return fault.New(fault.Invalid, "strategy %s: %s", st.Kind, bad).At(where).Mend("change strategy: in ashlar.yaml")
	}
	if loop := needLoop(&q.To); loop != "" {
		return fault.New(fault.Invalid, "components need each other in a circle: %s", loop).At(where).Mend("take one of them out of needs:")
	}
	for _, c := range q.To.Components {
		if old := s.Current.find(c.Name, c.Spec); old != nil && cmp.Or(old.Kind, KindService) != cmp.Or(c.Kind, KindService) {
			// Releases of older versions do not have the kind in the spec.
			return fault.New(fault.Invalid, "component %s becomes a %s and nothing else of it changes", c.Name, cmp.Or(c.Kind, KindService)).
				At(where).Mend("build the release anew:  ashlar deploy %s", s.Env)
		}
		if bad := checkComponent(c, st); bad != "" {
			return fault.New(fault.Invalid, "component %s: %s", c.Name, bad).At(where).Mend("change %s: under components: in ashlar.yaml", c.Name)
		}
	}
	if q.Force {
		return nil
	}
	return contract(s, q)
}

func checkComponent(c Component, st Strategy) string {
	switch {
	case (c.Kind == KindSingleton || len(c.Volumes) > 0) && c.Replicas > 1:
		return "it is declared more than once and may run only once at a time"
	case c.Route != nil && c.Kind != "" && c.Kind != KindService:
		return "a " + c.Kind + " has no route"
	}
	if c.Kind == KindJob {
		if _, err := gate.ParseSchedule(c.Schedule); err != nil {
			return fault.Of(err).What
		}
	}
	for _, h := range c.Hooks {
		if len(c.Volumes) > 0 && h.When != HookBefore {
			return "its hook " + h.When + " would hold a volume that an instance holds"
		}
	}
	return ""
}

// needLoop names the components that need each other; empty: none do.
func needLoop(t *Target) string {
	var left []string
	for _, c := range t.Components {
		left = append(left, c.Name)
	}
	for {
		next := slices.DeleteFunc(slices.Clone(left), func(name string) bool {
			return !slices.ContainsFunc(t.named(name).Needs, func(need string) bool { return slices.Contains(left, need) })
		})
		if len(next) == len(left) {
			return strings.Join(left, ", ")
		}
		left = next
	}
}

// deadline is how long the rollout may stand still.
func (s Strategy) deadline() time.Duration {
	if s.Deadline > 0 {
		return s.Deadline
	}
	return deadline
}
