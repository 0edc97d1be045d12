package rollout

import (
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
)

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
	Tail      []string      `json:"tail,omitempty"`  // last output lines: with Exited, on a probe failure, and of a hook or job
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
	Hook      string        `json:"hook,omitempty"`  // when it is the job of a hook: before, after or rollback
	Fence     int64         `json:"fence,omitempty"` // fencing token of a singleton, grows with every holder; 0: none
}

// Observation is what is known of the outside at one instant.
type Observation struct {
	Instances []Observed         // every instance of the environment, in any order
	Router    RouterStatus       // what the data plane acknowledges
	Attempts  map[string]Attempt // instance ID to the failed attempts to start it, those this process made
	Refused   *Refused           // the last table that the router refused for good; nil: none
	Metrics   map[string]Metric  // by expression: answers to State.Questions
	Admission *Admission         // what the policy says of State.Plea; nil: nobody judges here
	Frozen    *Frozen            // why the first that waits may not begin now; nil: it may
	Failed    string             // another environment, in which the release of the first that waits failed meanwhile; empty: none
}

// Frozen is a window in which nothing is deployed.
type Frozen struct {
	Until time.Time
	Why   string // in words
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

// Key names one environment of one application.
type Key struct {
	App string `json:"app"`
	Env string `json:"env"`
}

// String gives "app/env".
func (k Key) String() string { return k.App + "/" + k.Env }

// ErrStale says that a state was changed by somebody else since it was read.
var ErrStale = errors.New("state changed since it was read")
