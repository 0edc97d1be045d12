package rollout

import (
	"time"

	"github.com/opencontainers/go-digest"
)

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
	KnownGood  []digest.Digest    `json:"knownGood,omitempty"`  // releases that are proven: they served and baked; oldest first, each once
	LastResult *Result            `json:"lastResult,omitempty"` // of the last rollout that ended

	Queue      []Queued                      `json:"queue,omitempty"`      // rollouts that wait for the one in flight, in their order
	Warm       *Warm                         `json:"warm,omitempty"`       // the set before the current one, while it runs on without traffic
	Quarantine map[digest.Digest]Quarantined `json:"quarantine,omitempty"` // releases that failed here
	Fences     map[string]int64              `json:"fences,omitempty"`     // by singleton: the token of its last holder
	Jobs       map[string]Job                `json:"jobs,omitempty"`       // by component of kind job
	Data       map[string]int                `json:"data,omitempty"`       // by data schema: the version that the data has, or may have
	Least      map[string]int                `json:"least,omitempty"`      // by data schema: the lowest that it may have instead, where that is not certain
	Standing   *Standing                     `json:"standing,omitempty"`   // what the policy has against the release that is live; nil: nothing
	Readiness  *Readiness                    `json:"readiness,omitempty"`  // whether a rollback would work, as last rehearsed
}

// Queued is a rollout that waits for its turn.
type Queued struct {
	Request
	At time.Time `json:"at"`
}

// Warm is a set of instances that runs on without traffic, so that a rollback to
// it is only a switch.
type Warm struct {
	Target Target    `json:"target"` // reduced to the components that were replaced
	Till   time.Time `json:"till"`
}

// Quarantined is why a release is not deployed again by itself.
type Quarantined struct {
	At      time.Time `json:"at"`
	Rollout int       `json:"rollout"` // that failed
	Why     string    `json:"why"`
}

// Job is the memory of a scheduled job.
type Job struct {
	Schedule string    `json:"schedule"`       // by which Next was found
	Next     time.Time `json:"next"`           // when it runs again
	Last     *HookRun  `json:"last,omitempty"` // how it went the last time
}

// Readiness says whether a rollback would work.
type Readiness struct {
	Release digest.Digest `json:"release,omitempty"` // to which; empty: there is none
	OK      bool          `json:"ok"`
	Why     []string      `json:"why,omitempty"` // why it would not, in words
	Since   time.Time     `json:"since"`         // since when the answer is this one
}

// Order is an instance that Ashlar ordered and that is not yet gone.
type Order struct {
	Instance
	OrderedAt time.Time     `json:"orderedAt"`
	Start     time.Duration `json:"start"`              // how long it may take to become ready
	Drain     time.Duration `json:"drain"`              // how long its requests may go on once it left the routes: of the last table it was in
	Grace     time.Duration `json:"grace"`              // from its stop signal to SIGKILL
	Volumes   []string      `json:"volumes,omitempty"`  // exclusive ones that it holds until it is gone
	Alone     bool          `json:"alone,omitempty"`    // a worker or singleton: no other spec of its component starts before it is gone
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

// Step is how far a rollout has come.
type Step string

// The steps of a rollout, whatever the strategy. Each is entered by one recorded
// decision.
const (
	Laying    Step = "laying"    // the new instances start; in their turn, instances that cannot run beside the old are replaced
	Shifting  Step = "shifting"  // the router was asked for a stage's share of the traffic; what the stage asks for is waited for
	Switching Step = "switching" // the router was asked for the new table and has not acknowledged it
	Draining  Step = "draining"  // traffic is with the new; the old finish what they have and can still take it back
	Baking    Step = "baking"    // the new have to prove themselves; the old wait
	Retiring  Step = "retiring"  // the old are stopped and removed
	Reverting Step = "reverting" // a failure: traffic goes back to the old as soon as they can carry it, the new are stopped and removed
)

// Rollout is one transition of the environment's pointer.
type Rollout struct {
	Number    int       `json:"number"`             // within the environment, from 1
	Kind      string    `json:"kind"`               // deploy, rollback or down
	From      *Target   `json:"from,omitempty"`     // nil: the first release
	To        Target    `json:"to"`                 //
	Proven    bool      `json:"proven,omitempty"`   // a rollback to a proven release: it is not put back by itself
	Step      Step      `json:"step"`               //
	StepAt    time.Time `json:"stepAt"`             // when Step was entered
	Actor     string    `json:"actor"`              //
	Reason    string    `json:"reason,omitempty"`   //
	StartedAt time.Time `json:"startedAt"`          //
	SwitchAt  time.Time `json:"switchAt,omitzero"`  // when the router acknowledged the new table
	DrainTill time.Time `json:"drainTill,omitzero"` // when the old are stopped at the latest
	BakeTill  time.Time `json:"bakeTill,omitzero"`  // with Baking: when the new have proven themselves
	Failure   *Failure  `json:"failure,omitempty"`  // with Reverting

	Policy digest.Digest `json:"policy,omitempty"` // that admitted it; empty: there was none

	Wave       int                `json:"wave,omitempty"`      // the last wave of components that has its turn, from 0
	Stage      int                `json:"stage,omitempty"`     // with Shifting: which of the strategy's stages
	StageAt    time.Time          `json:"stageAt,omitzero"`    // when the router acknowledged the stage's share; zero: not yet
	Share      int                `json:"share,omitempty"`     // percent of the traffic that the new have, or may have
	Approved   *Said              `json:"approved,omitempty"`  // of the stage at hand
	Paused     *Said              `json:"paused,omitempty"`    // by a person; nothing goes forward
	Hurried    string             `json:"hurried,omitempty"`   // why the bake is cut short, so that the release does not count as proven
	ProgressAt time.Time          `json:"progressAt,omitzero"` // when something last went forward
	Rolls      map[string]Roll    `json:"rolls,omitempty"`     // by component that is replaced a few at a time
	Hooks      map[string]HookRun `json:"hooks,omitempty"`     // by HookKey: those that were begun
	Baseline   map[string]Traffic `json:"baseline,omitempty"`  // by TrafficKey: the counters when the stage or the bake began
	Data       map[string]int     `json:"data,omitempty"`      // State.Data when it began
	Least      map[string]int     `json:"least,omitempty"`     // State.Least when it began
}

// Said is what a person said of a rollout.
type Said struct {
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

// Roll is how far a rolling replacement has come: instances wanted on either side.
type Roll struct {
	New int `json:"new"`
	Old int `json:"old"`
}

// HookRun is one run of a hook or a job.
type HookRun struct {
	Instance  string    `json:"instance"`
	StartedAt time.Time `json:"startedAt"`         // when it was ordered
	EndedAt   time.Time `json:"endedAt,omitzero"`  // zero: it runs
	Failure   *Failure  `json:"failure,omitempty"` // nil with EndedAt: it ended with status 0
}

// Failure is why a rollout was put back.
type Failure struct {
	Instance  string   `json:"instance,omitempty"`
	Component string   `json:"component,omitempty"`
	What      string   `json:"what"`                // one sentence
	Exit      *Exit    `json:"exit,omitempty"`      //
	Probe     string   `json:"probe,omitempty"`     // the failing probe, in words
	Tail      []string `json:"tail,omitempty"`      // last output lines
	Blameless bool     `json:"blameless,omitempty"` // it says nothing of the release: a person asked for it, or the outside failed
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
	Proven    bool          `json:"proven,omitempty"` // it served and baked
}

// Outcome is how a rollout ended, in one word.
type Outcome string

// The outcomes of a rollout.
const (
	Live       Outcome = "live"       // the new release serves
	PutBack    Outcome = "put-back"   // the previous release serves, or nothing if there was none
	Superseded Outcome = "superseded" // another rollout took its place before it had touched anything
)
