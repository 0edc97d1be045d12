package rollout

// Course is how a rollout goes: what its strategy comes to for the components that it
// changes.
type Course struct {
	Stages []Stage        `json:"stages,omitempty"` // that precede the whole of the traffic
	Ways   map[string]Way `json:"ways,omitempty"`   // by component that it changes
}

// Way is how the new instances of a component take the place of the old.
type Way string

// The ways of a component.
const (
	Beside   Way = "beside"   // all of the new start beside the old; the traffic moves afterwards
	Rolled   Way = "rolled"   // a few at a time
	Replaced Way = "replaced" // the old end before the new start
)

// Course tells how the rollout goes.
func (r *Rollout) Course() Course {
	c := Course{Stages: r.stages(), Ways: map[string]Way{}}
	for _, wave := range wavesOf(r) {
		for _, name := range wave {
			c.Ways[name] = map[method]Way{beside: Beside, rolled: Rolled, replaced: Replaced}[how(r, name)]
		}
	}
	return c
}

// CourseOf tells how a deploy to a target would go.
func CourseOf(s State, to Target) Course {
	return (&Rollout{Kind: KindDeploy, From: s.Current, To: to}).Course()
}
