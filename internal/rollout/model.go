package rollout

import (
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
)

// Target is a release as one environment sees it, reduced to what deciding needs.
type Target struct {
	Release    digest.Digest `json:"release"`
	Number     int           `json:"number"` // of the release within its application
	Platform   string        `json:"platform"`
	Listen     string        `json:"listen,omitempty"`
	Strategy   string        `json:"strategy"`
	Components []Component   `json:"components"` // sorted by Name
}

// Component is one component of a Target.
type Component struct {
	Name     string        `json:"name"`
	Spec     digest.Digest `json:"spec"` // release.Spec digest: only its change replaces instances
	Replicas int           `json:"replicas"`
	Start    time.Duration `json:"start"` // how long an instance may take to become ready
	Drain    time.Duration `json:"drain"` // how long requests in flight may go on after the switch
	Grace    time.Duration `json:"grace"` // from the stop signal to SIGKILL
	Route    *Route        `json:"route,omitempty"`
}

// Route is where the requests for a component arrive.
type Route struct {
	Host string        `json:"host,omitempty"` // empty: any
	Path string        `json:"path"`           // prefix, begins with /
	Hold time.Duration `json:"hold"`           // how long a request waits for a ready backend before 503
}

// Phase is how far an instance has come, as a platform observes it.
type Phase string

// The phases of an instance. Unknown is what a platform says of an instance that
// runs but has not been probed since the observer started.
const (
	Starting Phase = "starting" // runs, has not been ready yet
	Ready    Phase = "ready"    // runs and its probe succeeds
	Unready  Phase = "unready"  // runs, was ready, its probe fails now
	Unknown  Phase = "unknown"  // runs, not probed yet by this observer
	Stopping Phase = "stopping" // asked to stop, still runs
	Exited   Phase = "exited"   // its program has ended; what it left is still there
)

// Observed is one instance as its platform reports it.
type Observed struct {
	ID        string        `json:"id"`
	Component string        `json:"component"`
	Release   digest.Digest `json:"release"`
	Spec      digest.Digest `json:"spec"`
	Phase     Phase         `json:"phase"`
	Address   string        `json:"address,omitempty"` // host:port for the router; empty without a port
	StartedAt time.Time     `json:"startedAt"`
	Probe     string        `json:"probe,omitempty"` // last probe failure, in words
	Exit      *Exit         `json:"exit,omitempty"`  // with Exited
	Tail      []string      `json:"tail,omitempty"`  // last output lines, with Exited and on a probe failure
}

// Exit is how a program ended.
type Exit struct {
	Code   int       `json:"code"`             // exit status; 128+signal when Signal is set
	Signal string    `json:"signal,omitempty"` // e.g. SIGKILL
	OOM    bool      `json:"oom,omitempty"`    // killed by its memory limit
	At     time.Time `json:"at"`
}

// Instance is an order to run one unit of one component of one release.
type Instance struct {
	ID        string        `json:"id"` // unique for ever within the server
	Component string        `json:"component"`
	Release   digest.Digest `json:"release"`
	Spec      digest.Digest `json:"spec"`
}

// Table is the complete set of routes of one environment. It replaces the one
// before it in a single step.
type Table struct {
	Generation int64     `json:"generation"` // grows with every change; a router refuses an older one
	Listen     string    `json:"listen,omitempty"`
	Services   []Service `json:"services"` // sorted by Name
}

// Service is one routed component of a Table.
type Service struct {
	Name     string        `json:"name"`
	Host     string        `json:"host,omitempty"`
	Path     string        `json:"path"`
	Hold     time.Duration `json:"hold"`
	Drain    time.Duration `json:"drain"`    // after which a backend that left is cut
	Backends []Backend     `json:"backends"` // sorted by ID
}

// Backend is one instance that receives requests.
type Backend struct {
	ID      string `json:"id"`
	Address string `json:"address"` // host:port
	Weight  int    `json:"weight"`  // relative; 0: none
}

// RouterStatus is what the data plane acknowledges for one environment.
type RouterStatus struct {
	Generation int64          `json:"generation"` // of the Table in force; 0: none
	InFlight   map[string]int `json:"inFlight"`   // backend ID to requests under way, leaving backends included
}

// State is everything that is remembered about one environment: the pointer to
// its current release, the rollout in flight and the instances that were ordered.
// The zero State is an environment in which nothing was ever deployed.
type State struct {
	App        string             `json:"app"`
	Env        string             `json:"env"`
	Platform   string             `json:"platform,omitempty"` // where its instances are, or were last
	Current    *Target            `json:"current,omitempty"`  // the pointer; nil: nothing was ever live
	Rollout    *Rollout           `json:"rollout,omitempty"`  // nil: none in flight
	Rollouts   int                `json:"rollouts"`           // number of the last rollout that was begun
	Ordered    int                `json:"ordered"`            // number of instances ever ordered; makes their IDs unique
	Table      Table              `json:"table"`              // last table asked of the router
	Instances  []Order            `json:"instances,omitempty"`
	Restarts   map[string]Restart `json:"restarts,omitempty"`   // by component
	KnownGood  []digest.Digest    `json:"knownGood,omitempty"`  // releases that were live, oldest first, each once
	LastResult *Result            `json:"lastResult,omitempty"` // of the last rollout that ended
}

// Order is an instance that Ashlar ordered and that is not yet gone.
type Order struct {
	Instance
	OrderedAt time.Time     `json:"orderedAt"`
	Start     time.Duration `json:"start"`              // how long it may take to become ready
	Drain     time.Duration `json:"drain"`              // how long its requests may go on once it left the routes: of the last table it was in
	Grace     time.Duration `json:"grace"`              // from its stop signal to SIGKILL
	Seen      bool          `json:"seen,omitempty"`     // was observed at least once
	Served    bool          `json:"served,omitempty"`   // was ready at least once
	Unready   time.Time     `json:"unready,omitzero"`   // since when it is not ready although it was
	Leaving   bool          `json:"leaving,omitempty"`  // on its way out: unrouted, drained, stopped, removed
	Why       string        `json:"why,omitempty"`      // why it leaves
	DrainTill time.Time     `json:"drainTill,omitzero"` // once unrouted: when it is stopped at the latest
	StopAt    time.Time     `json:"stopAt,omitzero"`    // when its stop was ordered
}

// Restart is the memory of a component's failing instances, for backing off.
type Restart struct {
	Count int       `json:"count"`          // failures in a row
	After time.Time `json:"after,omitzero"` // not to be ordered again before
}

// Observation is what is known of the outside at one instant.
type Observation struct {
	Instances []Observed         // every instance of the environment, in any order
	Router    RouterStatus       // what the data plane acknowledges
	Attempts  map[string]Attempt // instance ID to the failed attempts to start it, those this process made
	Refused   *Refused           // the last table that the router refused for good; nil: none
}

// Attempt is the memory of starts of one instance that the platform reported as failed.
type Attempt struct {
	Count int       // failed attempts
	Last  string    // the last error, in words
	At    time.Time // of the last attempt
}

// Refused is a table that the router will not take, however often it is asked.
type Refused struct {
	Generation int64
	What       string // why, in words
}

// Step is how far a rollout has come.
type Step string

// The steps of a blue-green rollout. Each is entered by one recorded decision.
const (
	Laying    Step = "laying"    // new instances start beside the old; traffic is with the old
	Switching Step = "switching" // the router was asked for the new table and has not acknowledged it
	Draining  Step = "draining"  // traffic is with the new; the old finish what they have and can still take it back
	Retiring  Step = "retiring"  // the old are stopped and removed
	Reverting Step = "reverting" // a failure: traffic goes back to the old as soon as they can carry it, the new are stopped and removed
)

// Rollout is one transition of the environment's pointer.
type Rollout struct {
	Number    int       `json:"number"`             // within the environment, from 1
	Kind      string    `json:"kind"`               // deploy or rollback
	From      *Target   `json:"from,omitempty"`     // nil: the first release
	To        Target    `json:"to"`                 //
	Step      Step      `json:"step"`               //
	StepAt    time.Time `json:"stepAt"`             // when Step was entered
	Actor     string    `json:"actor"`              //
	Reason    string    `json:"reason,omitempty"`   //
	StartedAt time.Time `json:"startedAt"`          //
	SwitchAt  time.Time `json:"switchAt,omitzero"`  // when the router acknowledged the new table
	DrainTill time.Time `json:"drainTill,omitzero"` // when the old are stopped at the latest
	Failure   *Failure  `json:"failure,omitempty"`  // with Reverting
}

// Failure is why a rollout was put back.
type Failure struct {
	Instance  string   `json:"instance,omitempty"`
	Component string   `json:"component,omitempty"`
	What      string   `json:"what"`            // one sentence
	Exit      *Exit    `json:"exit,omitempty"`  //
	Probe     string   `json:"probe,omitempty"` // the failing probe, in words
	Tail      []string `json:"tail,omitempty"`  // last output lines
}

// Result is how a rollout ended.
type Result struct {
	Number    int           `json:"number"`
	Kind      string        `json:"kind"`
	Outcome   Outcome       `json:"outcome"`
	Release   digest.Digest `json:"release"` // that was asked for
	StartedAt time.Time     `json:"startedAt"`
	SwitchAt  time.Time     `json:"switchAt,omitzero"`
	EndedAt   time.Time     `json:"endedAt"`
	Failure   *Failure      `json:"failure,omitempty"`
}

// Outcome is how a rollout ended, in one word.
type Outcome string

// The outcomes of a rollout.
const (
	Live    Outcome = "live"     // the new release serves
	PutBack Outcome = "put-back" // the previous release serves, or nothing if there was none
)

// Key names one environment of one application.
type Key struct {
	App string `json:"app"`
	Env string `json:"env"`
}

// String gives "app/env".
func (k Key) String() string { return k.App + "/" + k.Env }

// ErrStale says that a state was changed by somebody else since it was read.
var ErrStale = errors.New("state changed since it was read")
