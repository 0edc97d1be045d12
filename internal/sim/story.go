package sim

import (
	"fmt"
	"time"
)

// told is a line of the story. It is put into words when somebody wants to read it,
// which few runs come to.
type told struct {
	at     time.Time
	format string
	args   []any
}

// tell adds to the story. What it is given must not change afterwards.
func (w *world) tell(format string, args ...any) {
	w.story = append(w.story, told{w.now, format, args})
}

// words gives the story, a line each.
func (w *world) words() []string {
	out := make([]string, len(w.story))
	for i, t := range w.story {
		out[i] = fmt.Sprintf("%9.3fs  ", t.at.Sub(epoch).Seconds()) + fmt.Sprintf(t.format, t.args...)
	}
	return out
}

// violate notes that an invariant does not hold.
func (w *world) violate(invariant, format string, args ...any) {
	text := invariant + ": " + fmt.Sprintf(format, args...)
	w.violations = append(w.violations, text)
	w.tell("VIOLATION %s", text)
}
