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
	Strategy   Strategy      `json:"strategy"`
	Components []Component   `json:"components"` // sorted by Name
}

// Strategy is how a target takes the place of the one before it.
type Strategy struct {
	Kind string `json:"kind"` // blue-green, rolling, canary or recreate
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
	Hook      string        `json:"hook,omitempty"`  // when it is the job of a hook: before, after or rollback
	Fence     int64         `json:"fence,omitempty"` // fencing token of a singleton, grows with every holder; 0: none
}

// Table is the complete set of routes of one environment. It replaces the one
// before it in a single step.
type Table struct {
	Generation int64     `json:"generation"` // grows with every change; a router refuses an older one
	Listen     string    `json:"listen,omitempty"`
	TLS        *TLS      `json:"tls,omitempty"` // of Listen; nil: plain HTTP
	Services   []Service `json:"services"`      // sorted by Name
}

// Service is one routed component of a Table.
type Service struct {
	Name     string        `json:"name"`
	Host     string        `json:"host,omitempty"`
	Path     string        `json:"path,omitempty"`   // empty with TCP
	TCP      int           `json:"tcp,omitempty"`    // port of the service's stable address, routed by the kernel; 0: http
	Listen   string        `json:"listen,omitempty"` // with TCP: host:port on the host that leads there too
	Hold     time.Duration `json:"hold"`
	Drain    time.Duration `json:"drain"`            // after which a backend that left is cut
	Drains   Drains        `json:"drains,omitzero"`  // by kind of connection, where it is not Drain
	Match    *Match        `json:"match,omitempty"`  // requests that go to one release whatever the weights
	Sticky   string        `json:"sticky,omitempty"` // cookie that keeps a client with the release that served it first
	Backends []Backend     `json:"backends"`         // sorted by ID
}

// Drains are drain times by kind of connection; 0: the service's Drain.
type Drains struct {
	Request   time.Duration `json:"request,omitempty"`
	WebSocket time.Duration `json:"webSocket,omitempty"` // and other upgraded connections
	Stream    time.Duration `json:"stream,omitempty"`    // answers of type text/event-stream
	GRPC      time.Duration `json:"grpc,omitempty"`
	TCP       time.Duration `json:"tcp,omitempty"`
}

// Match sends the requests whose header or cookie has the value to the backends
// of Release, as long as one of them is open.
type Match struct {
	Header  string `json:"header,omitempty"`
	Cookie  string `json:"cookie,omitempty"`
	Value   string `json:"value"`
	Release string `json:"release"` // Backend.Release
}

// TLS is where the certificate of an address comes from.
type TLS struct {
	Certificate string   `json:"certificate,omitempty"` // file, PEM, with its chain; read again when it changes
	Key         string   `json:"key,omitempty"`         // file, PEM
	ACME        string   `json:"acme,omitempty"`        // directory URL, in place of the files
	Domains     []string `json:"domains,omitempty"`     // with ACME
}

// Backend is one instance that receives requests.
type Backend struct {
	ID      string `json:"id"`
	Address string `json:"address"`           // host:port
	Weight  int    `json:"weight"`            // relative; 0: none
	Release string `json:"release,omitempty"` // of the instance, in short: the group that Match, Sticky and metrics speak of
}

// RouterStatus is what the data plane acknowledges for one environment.
type RouterStatus struct {
	Generation int64              `json:"generation"`        // of the Table in force, the oldest where several routers have a part of it; 0: none
	InFlight   map[string]int     `json:"inFlight"`          // backend ID to requests under way, leaving backends included
	Kinds      map[string]Flight  `json:"kinds,omitempty"`   // backend ID to the same by kind
	Cut        map[string]Flight  `json:"cut,omitempty"`     // backend ID to what was cut at the end of its drain time, of the backends that left lately
	Traffic    map[string]Traffic `json:"traffic,omitempty"` // TrafficKey to what the router counted since it started
}

// Flight counts what is under way, or was cut, by kind.
type Flight struct {
	Requests   int `json:"requests,omitempty"`
	WebSockets int `json:"webSockets,omitempty"` // and other upgraded connections
	Streams    int `json:"streams,omitempty"`    // server-sent events
	GRPC       int `json:"grpc,omitempty"`
	TCP        int `json:"tcp,omitempty"`
}

// Traffic is what a service's backends of one release answered, counted up since
// the router started: a smaller number than before means that it started anew.
type Traffic struct {
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`  // answers 5xx of the backend, and answers that it broke off or never gave
	Latency  []int64 `json:"latency"` // answers by time to their header: one count for each of LatencyBounds, and one for the rest
}

// LatencyBounds are the upper bounds of the classes of Traffic.Latency.
var LatencyBounds = latencyBounds()

// latencyBounds grow by a quarter from half a millisecond to about a minute: a
// quantile read from them is at most a quarter too large.
func latencyBounds() []time.Duration {
	var bounds []time.Duration
	for b := 500 * time.Microsecond; b < time.Minute; b += b / 4 {
		bounds = append(bounds, b.Round(10*time.Microsecond))
	}
	return bounds
}

// TrafficKey names the traffic of a service's backends of one release.
func TrafficKey(service, release string) string { return service + "@" + release }

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
