package rollout

import (
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Target is a release as one environment sees it, reduced to what deciding needs.
type Target struct {
	Release    digest.Digest `json:"release"`
	Number     int           `json:"number"` // of the release within its application
	Platform   string        `json:"platform"`
	Listen     string        `json:"listen,omitempty"`
	TLS        *TLS          `json:"tls,omitempty"` // of Listen; nil: plain HTTP
	Strategy   Strategy      `json:"strategy"`
	Components []Component   `json:"components"` // sorted by Name

	BreakGlass string `json:"breakGlass,omitempty"` // who let it in in spite of the policy, and why; empty: nobody had to
}

// Emptied is the target without its components: what taking everything down leads to.
func (t *Target) Emptied() Target {
	return Target{Release: t.Release, Number: t.Number, Platform: t.Platform, Strategy: t.Strategy}
}

// Strategy is how a target takes the place of the one before it. What a kind does
// not speak of is ignored.
type Strategy struct {
	Kind string `json:"kind"` // BlueGreen, Rolling, Canary or Recreate

	Stages  []Stage       `json:"stages,omitempty"`  // what precedes the whole of the traffic, in order; blue-green's have no weight
	Preview string        `json:"preview,omitempty"` // blue-green: host name of the new instances before the switch
	Warm    time.Duration `json:"warm,omitempty"`    // how long the old instances run on without traffic after the switch
	Match   *Match        `json:"match,omitempty"`   // canary: requests that go to the new whatever the weight; its Release is empty
	Sticky  string        `json:"sticky,omitempty"`  // canary: cookie that keeps a client with the release that served it first

	Surge       int `json:"surge,omitempty"`       // rolling: instances beyond the declared number
	Unavailable int `json:"unavailable,omitempty"` // rolling: instances that may be missing
	Batch       int `json:"batch,omitempty"`       // rolling: instances replaced at a time; 0: as many as the two above allow

	Bake     time.Duration `json:"bake,omitempty"`     // after the switch, before the release counts as proven
	Deadline time.Duration `json:"deadline,omitempty"` // without progress for so long it is put back; 0: 10 minutes
	Queue    string        `json:"queue,omitempty"`    // QueueRefuse when empty
	Analysis *Analysis     `json:"analysis,omitempty"` // at each stage and while baking; nil: none
	Freeze   []Window      `json:"freeze,omitempty"`   // when nothing is deployed by itself
}

// Analysis is what the new release's traffic and metrics have to keep to. See
// package gate.
type Analysis struct {
	Requests   int           `json:"requests"`             // of the new that there have to be
	Errors     string        `json:"errors,omitempty"`     // most share of errors, a decimal percentage
	Slower     string        `json:"slower,omitempty"`     // most that the quantile may be of the old one's, a decimal factor
	Quantile   int           `json:"quantile,omitempty"`   // per mille
	Window     time.Duration `json:"window"`               // how long evidence is waited for
	Prometheus string        `json:"prometheus,omitempty"` // base URL
	Secret     string        `json:"secret,omitempty"`     // name of the secret that it asks for; empty: none
	Queries    []Query       `json:"queries,omitempty"`
}

// Query is one query of Prometheus with the bounds of its value. $new and $old in
// Expr stand for the two releases, as [Short] gives them.
type Query struct {
	Name string `json:"name"`
	Expr string `json:"expr"`
	Min  string `json:"min,omitempty"` // decimal; empty: no bound
	Max  string `json:"max,omitempty"` // decimal; empty: no bound
}

// Window is a time in which nothing is deployed, as gate.Window has it.
type Window struct {
	Days  []string `json:"days,omitempty"`
	From  string   `json:"from"`
	To    string   `json:"to"`
	Zone  string   `json:"zone"`
	Until string   `json:"until,omitempty"`
}

// The kinds of strategies.
const (
	BlueGreen = "blue-green" // all new instances beside the old, then all of the traffic
	Rolling   = "rolling"    // a few instances at a time, old and new serving together
	Canary    = "canary"     // all new instances beside the old, then the traffic in stages
	Recreate  = "recreate"   // the old end before the new start
)

// What becomes of a rollout that is asked for while another is in flight.
const (
	QueueRefuse    = "refuse"    // it is refused
	QueueSerialise = "serialise" // it waits; all of them run, in order
	QueueCoalesce  = "coalesce"  // it waits; only the newest that waits runs
	QueueVerify    = "verify"    // as serialise, and each is baked before the next begins
)

// Stage is a share of the traffic and what has to be waited for before the next.
type Stage struct {
	Weight  int           `json:"weight"` // percent of the requests that go to the new
	Pause   time.Duration `json:"pause,omitempty"`
	Approve bool          `json:"approve,omitempty"` // a person has to approve
}

// Component is one component of a Target.
type Component struct {
	Name     string        `json:"name"`
	Kind     string        `json:"kind,omitempty"` // Service when empty
	Spec     digest.Digest `json:"spec"`           // release.Spec digest: only its change replaces instances
	Replicas int           `json:"replicas"`
	Start    time.Duration `json:"start"`              // how long an instance may take to become ready
	Drain    time.Duration `json:"drain"`              // how long requests in flight may go on after the switch
	Grace    time.Duration `json:"grace"`              // from the stop signal to SIGKILL
	Route    *Route        `json:"route,omitempty"`    //
	Needs    []string      `json:"needs,omitempty"`    // components that are replaced and ready before this one
	Volumes  []string      `json:"volumes,omitempty"`  // exclusive ones that an instance holds
	Hooks    []Hook        `json:"hooks,omitempty"`    // in the order in which they run
	Schemas  []Schema      `json:"schemas,omitempty"`  // what its program knows of data schemas
	Schedule string        `json:"schedule,omitempty"` // of a job, as crontab(5) has it, UTC
}

// The kinds of components. All but services have no route.
const (
	KindService   = "service"   // serves requests: the new may run beside the old
	KindWorker    = "worker"    // takes work by itself: the old stop before the new start
	KindSingleton = "singleton" // one at a time, under a fencing token
	KindJob       = "job"       // runs to its end on a schedule, one at a time
)

// alone says whether two specs of the component may not run at the same time, so
// that the old one ends before the new one starts.
func (c *Component) alone(s Strategy) bool {
	return s.Kind == Recreate || c.Kind == KindWorker || c.Kind == KindSingleton || len(c.Volumes) > 0
}

// Route is where the requests for a component arrive.
type Route struct {
	Host   string        `json:"host,omitempty"`   // empty: any
	Path   string        `json:"path,omitempty"`   // prefix, begins with /; empty with TCP
	TCP    int           `json:"tcp,omitempty"`    // port of the component's stable address; 0: http
	Listen string        `json:"listen,omitempty"` // with TCP: host:port on the host that leads there too
	Hold   time.Duration `json:"hold"`             // how long a request waits for a ready backend before 503
	Drains Drains        `json:"drains,omitzero"`  // by kind of connection, where it is not the component's Drain
}

// Hook is a one-off instance of the component's release with a command of its own.
type Hook struct {
	When    string        `json:"when"` // HookBefore, HookAfter or HookRollback
	Spec    digest.Digest `json:"spec"` // of the instance: release.Component.HookSpec
	Timeout time.Duration `json:"timeout"`
}

// When a hook runs, and Instance.Hook of a scheduled job.
const (
	HookBefore   = "before"   // when what the component needs is ready, before its new instances start
	HookAfter    = "after"    // when the traffic is with the new
	HookRollback = "rollback" // when the traffic is back with the old
	HookSchedule = "schedule" // a job at its time
)

// Schema is what a component's program knows of one data schema, whose versions grow.
type Schema struct {
	Name   string `json:"name"`
	Min    int    `json:"min"`              // oldest version that it can read
	Max    int    `json:"max"`              // newest version that it can read
	Writes int    `json:"writes"`           // version that it writes
	Leaves int    `json:"leaves,omitempty"` // version that its hook before the switch leaves; 0: it migrates nothing
}

// find gives the component of that name and spec; nil also for a nil target.
func (t *Target) find(name string, spec digest.Digest) *Component {
	if c := t.named(name); c != nil && c.Spec == spec {
		return c
	}
	return nil
}

// named gives the component of that name; nil also for a nil target.
func (t *Target) named(name string) *Component {
	if t == nil {
		return nil
	}
	for i := range t.Components {
		if c := &t.Components[i]; c.Name == name {
			return c
		}
	}
	return nil
}

// Short is the group of a release's backends in tables and metrics: the beginning
// of its digest.
func Short(release digest.Digest) string {
	_, hex, _ := strings.Cut(string(release), ":")
	return hex[:min(12, len(hex))]
}
