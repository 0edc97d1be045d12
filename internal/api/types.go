package api

import (
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// ReleaseRef names a release for people and for programs.
type ReleaseRef struct {
	Number int           `json:"number,omitempty"` // within the application; 0: not stored yet
	Digest digest.Digest `json:"digest"`
}

// AddedRelease answers POST /v1/releases, whose body is the canonical document.
type AddedRelease struct {
	App string `json:"app"`
	ReleaseRef
}

// Release answers GET /v1/release.
type Release struct {
	ReleaseRef
	Created   time.Time       `json:"created"`
	Collected bool            `json:"collected,omitempty"`
	Release   release.Release `json:"release"`
}

// PlanRequest asks what a release would change. Exactly one of Release and
// Document is set.
type PlanRequest struct {
	App      string `json:"app"`
	Env      string `json:"env"`
	Release  string `json:"release,omitempty"`  // number or digest of a stored release
	Document string `json:"document,omitempty"` // canonical JSON of one that need not be stored
	Ahead    bool   `json:"ahead,omitempty"`    // its deploy may follow: the server gets ready for it
}

// Plan is what a release would change in an environment.
type Plan struct {
	App         string                    `json:"app"`
	Env         string                    `json:"env"`
	From        *ReleaseRef               `json:"from,omitempty"` // nil: nothing is live
	To          ReleaseRef                `json:"to"`
	Changes     []release.ComponentChange `json:"changes"`
	Environment []release.Reason          `json:"environment,omitempty"` // changes of the environment's own settings
	Instances   []PlannedInstance         `json:"instances,omitempty"`   // what happens to each instance that runs now
	Nothing     bool                      `json:"nothing"`               // there is nothing to change
	Rollout     release.Rollout           `json:"rollout"`               // how it would be done
	Course      rollout.Course            `json:"course"`                // what of that applies to the components that change
	Hooks       []PlannedHook             `json:"hooks,omitempty"`       // that would run
	Policy      digest.Digest             `json:"policy,omitempty"`      // by which the release is judged; empty: there is none
}

// PlannedHook is a hook of a component that a plan changes.
type PlannedHook struct {
	Component string `json:"component"`
	release.Hook
}

// PlannedInstance is what a plan does to one running instance.
type PlannedInstance struct {
	ID        string       `json:"id"`
	Component string       `json:"component"`
	Kind      release.Kind `json:"kind"` // replaced, removed or unchanged
	Why       []string     `json:"why,omitempty"`
}

// AheadRequest says that a deploy to the environment is being built.
type AheadRequest struct {
	App string `json:"app"`
	Env string `json:"env"`
}

// BeginRequest asks for a rollout: POST /v1/deploy, /v1/rollback or /v1/down.
type BeginRequest struct {
	App     string `json:"app"`
	Env     string `json:"env"`
	Release string `json:"release,omitempty"` // number or digest; a rollback without one takes the last known-good release
	Reason  string `json:"reason,omitempty"`

	Queue      bool `json:"queue,omitempty"`      // wait for the rollout in flight, whatever the environment says
	Supersede  bool `json:"supersede,omitempty"`  // end the rollout in flight
	BreakGlass bool `json:"breakGlass,omitempty"` // in spite of the policy; with a reason
	Force      bool `json:"force,omitempty"`      // in spite of a freeze or a schema contract; with a reason
}

// Begun is a rollout that was put in flight, or waits for its turn.
type Begun struct {
	Rollout rollout.Rollout `json:"rollout"`          // with Queued, the one in flight; none in a freeze
	Queued  int             `json:"queued,omitempty"` // place among those that wait, from 1; 0: it was begun
	Index   int64           `json:"index"`            // no entry of the rollout has a lower index in the record
}

// Environment is one environment in a list.
type Environment struct {
	App      string           `json:"app"`
	Env      string           `json:"env"`
	Current  *ReleaseRef      `json:"current,omitempty"`
	URL      string           `json:"url,omitempty"`
	Running  int              `json:"running"` // instances ordered and not leaving
	Rollout  *rollout.Rollout `json:"rollout,omitempty"`
	Last     *rollout.Result  `json:"last,omitempty"`
	Rollouts int              `json:"rollouts"`
}

// Status is one environment in full.
type Status struct {
	engine.Status
	URL    string    `json:"url,omitempty"` // where requests arrive
	Now    time.Time `json:"now"`           // of the server, to tell ages
	Number int       `json:"number"`        // of the release that is live; 0: none

	Releases map[digest.Digest]int `json:"releases,omitempty"` // numbers of the releases that are mentioned
}

// Release names a release in words.
func (s Status) Release(d digest.Digest) string {
	if n := s.Releases[d]; n > 0 {
		return "release " + strconv.Itoa(n)
	}
	return "release " + d.String()
}

// History is what happened to an application.
type History struct {
	App      string           `json:"app"`
	Releases []HistoryRelease `json:"releases"`
	Rollouts []HistoryRollout `json:"rollouts"` // oldest first
}

// HistoryRelease is one release and where it stands.
type HistoryRelease struct {
	ReleaseRef
	Created   time.Time `json:"created"`
	LiveIn    []string  `json:"liveIn,omitempty"`    // environments
	KnownGood []string  `json:"knownGood,omitempty"` // other environments that were live with it and can roll back to it
	Collected bool      `json:"collected,omitempty"` // its bytes were removed by gc: it takes a build to deploy it
}

// HistoryRollout is one rollout, folded from the record.
type HistoryRollout struct {
	Env     string        `json:"env"`
	Number  int           `json:"number"`
	Kind    string        `json:"kind"`
	From    string        `json:"from,omitempty"` // release number
	To      string        `json:"to"`             // release number
	Release digest.Digest `json:"release"`
	Actor   string        `json:"actor"`
	Reason  string        `json:"reason,omitempty"`
	Begun   time.Time     `json:"begun"`
	Live    time.Time     `json:"live,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`
	Outcome string        `json:"outcome"` // live, put-back, superseded or in flight
	Why     string        `json:"why,omitempty"`
}

// EntriesQuery selects entries of the record.
type EntriesQuery struct {
	App    string // with Env: of one environment; both empty: all
	Env    string
	From   int64 // first index
	To     int64 // index after the last; negative: up to the end
	Follow bool  // go on with entries as they are appended, until the request ends
}

// OutputQuery selects output of instances.
type OutputQuery struct {
	App, Env  string
	Component string // empty: all
	Instance  string // empty: all
	Tail      int    // last lines of each instance; negative: all
	Follow    bool
}

// OutputLine is one line that an instance wrote.
type OutputLine struct {
	Instance string    `json:"instance"`
	Time     time.Time `json:"time,omitzero"`
	Stream   string    `json:"stream,omitempty"` // stdout or stderr
	Text     string    `json:"text"`
	Partial  bool      `json:"partial,omitempty"` // the line goes on in the instance's next one
}

// GCRequest asks for what no release needs to be removed.
type GCRequest struct {
	DryRun bool `json:"dryRun"`
	Keep   int  `json:"keep,omitempty"` // known-good releases per environment; 0: what each environment says
}

// GCReport says what was, or would be, removed.
type GCReport struct {
	DryRun   bool         `json:"dryRun"`
	Kept     Amount       `json:"kept"`
	Removed  Amount       `json:"removed"`
	Refs     int          `json:"refs"`     // build cache entries removed
	Secrets  int          `json:"secrets"`  // old versions of secrets removed
	Releases []ReleaseRef `json:"releases"` // that can be deployed or rolled back to without a build
}

// Amount counts objects and their bytes.
type Amount struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// LogText is a text that speaks for the record: a checkpoint or a proof.
type LogText struct {
	Text string `json:"text"`
}

// Check is one guarantee that this machine can or cannot give.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// Version is what a server says of itself.
type Version struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Dir     string    `json:"dir"` // state directory
	RSS     int64     `json:"rss"` // bytes of memory in use; 0: not known
}

// EndRequest asks the server to end. Instances go on.
type EndRequest struct {
	Router bool `json:"router"` // end the router too, and take away what the server made on this machine
}

// entry is the line of an entries stream.
type entry = record.Entry
