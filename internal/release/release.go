// Package release holds the release document: one canonical JSON value that
// says everything an application is, named by its digest and never changed.
//
// A release carries the settings of every environment, merged, so that promotion
// and rollback need nothing but the document and the objects it names.
//
// Start at [Release]; [Spec] is what one instance is.
package release

import (
	"github.com/opencontainers/go-digest"
)

// Schema is the value of Release.Schema that this program writes.
const Schema = "ashlar.dev/release/v1"

// Release is the whole document. Its name is the SHA-256 of its canonical JSON
// (RFC 8785), see Release.Digest.
type Release struct {
	Schema       string                 `json:"schema"`
	App          string                 `json:"app"`
	Environments map[string]Environment `json:"environments"`
}

// Environment is what the release is in one environment.
type Environment struct {
	Platform   string               `json:"platform"`
	Rollout    Rollout              `json:"rollout"`
	Listen     string               `json:"listen,omitempty"` // host:port of the http router
	TLS        *TLS                 `json:"tls,omitempty"`    // nil: plain HTTP
	Keep       int                  `json:"keep"`             // known-good releases that gc keeps
	Volumes    map[string]Volume    `json:"volumes,omitempty"`
	Events     []Webhook            `json:"events,omitempty"` // who is told of what happens, in file order
	Components map[string]Component `json:"components"`
}

// Component is one component in one environment: what each instance is, how many
// there are and how they are routed. Only a change of Spec replaces instances.
type Component struct {
	Kind string `json:"kind,omitempty"` // KindService when empty
	Spec Spec   `json:"spec"`
	// Ledger is the object that says where every byte of the artifact comes from, see
	// package ledger. It replaces no instance. Releases of older versions have none.
	Ledger   digest.Digest `json:"ledger,omitempty"`
	Replicas int           `json:"replicas"`
	DrainMS  int64         `json:"drainMs"`            // milliseconds that requests in flight may go on
	Needs    []string      `json:"needs,omitempty"`    // components that are replaced and ready before this one, sorted
	Schedule string        `json:"schedule,omitempty"` // of a job: five fields as crontab(5) has them, UTC
	Route    *Route        `json:"route,omitempty"`
	Hooks    []Hook        `json:"hooks,omitempty"`   // in file order
	Schemas  []DataSchema  `json:"schemas,omitempty"` // sorted by Name
}

// The kinds of components. All but services have no route.
const (
	KindService   = "service"   // serves requests: the new may run beside the old
	KindWorker    = "worker"    // takes work by itself: the old stop taking it before the new start
	KindSingleton = "singleton" // one at a time, under a fencing token
	KindJob       = "job"       // runs to its end on a schedule, one at a time
)

// Hook is a one-off instance of the component with another command.
type Hook struct {
	When      string   `json:"when"` // HookBefore, HookAfter or HookRollback
	Command   []string `json:"command"`
	TimeoutMS int64    `json:"timeoutMs"`
}

// When a hook runs. A failure before the switch puts the rollout back; one after
// it, while the release is not proven, too; one on rollback is recorded.
const (
	HookBefore   = "before"   // before the traffic moves
	HookAfter    = "after"    // after the traffic moved
	HookRollback = "rollback" // when the traffic is back with the previous release
)

// DataSchema is what the component's program knows of one data schema, whose versions are
// whole numbers that grow.
type DataSchema struct {
	Name   string `json:"name"`
	Reads  Range  `json:"reads"`            // versions that it can read
	Writes int    `json:"writes"`           // version that it writes
	Leaves int    `json:"leaves,omitempty"` // version that its migration hook leaves behind; 0: it migrates nothing
}

// Range is whole numbers from Min to Max, both included.
type Range struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// Volume is a writable place that outlives instances.
type Volume struct {
	Mode     string `json:"mode"`               // VolumeExclusive or VolumeShared
	Snapshot bool   `json:"snapshot,omitempty"` // take one before each hand-over, where the file system offers reflinks
}

// How many instances may hold a volume.
const (
	VolumeExclusive = "exclusive" // one at a time: its component is replaced by recreate
	VolumeShared    = "shared"
)

// TLS is the certificate of an environment's address.
type TLS struct {
	Certificate string   `json:"certificate,omitempty"` // file on the host, PEM, with its chain
	Key         string   `json:"key,omitempty"`         // file on the host, PEM
	ACME        string   `json:"acme,omitempty"`        // directory URL, in place of the files
	Domains     []string `json:"domains,omitempty"`     // with ACME
}

// Webhook is told of rollouts as CloudEvents.
type Webhook struct {
	URL    string `json:"url"`
	Secret string `json:"secret,omitempty"` // name of the secret that signs; empty: unsigned
}

// Rollout is how a release takes the place of the one before it.
type Rollout struct {
	Strategy string `json:"strategy"` // blue-green, rolling, canary or recreate

	Preview string `json:"preview,omitempty"` // blue-green: host name under which the new set can be looked at before the switch
	Approve bool   `json:"approve,omitempty"` // blue-green: a person approves the switch
	WarmMS  int64  `json:"warmMs,omitempty"`  // how long the old set runs on without traffic, so that a rollback is only a switch

	Surge       int `json:"surge,omitempty"`       // rolling: instances beyond the declared number
	Unavailable int `json:"unavailable,omitempty"` // rolling: instances that may be missing
	Batch       int `json:"batch,omitempty"`       // rolling: instances replaced at a time; 0: as many as the two above allow

	Steps  []Step `json:"steps,omitempty"`  // canary, in order
	Match  *Match `json:"match,omitempty"`  // canary: requests that go to the new set whatever the weight
	Sticky string `json:"sticky,omitempty"` // canary: cookie that keeps a client with the set that served it first

	Analysis   *Analysis `json:"analysis,omitempty"`
	BakeMS     int64     `json:"bakeMs"`     // after the switch, before the release counts as proven; a failure puts it back
	DeadlineMS int64     `json:"deadlineMs"` // without progress for so long it is put back; waiting for people does not count
	Queue      string    `json:"queue"`      // QueueRefuse (also when empty), QueueSerialise, QueueCoalesce or QueueVerify
	Freeze     []Window  `json:"freeze,omitempty"`
}

// What becomes of a deploy that is asked for while a rollout is in flight.
const (
	QueueRefuse    = "refuse"    // it is refused, unless it supersedes or queues by its own words
	QueueSerialise = "serialise" // it waits; all of them run, in order
	QueueCoalesce  = "coalesce"  // it waits; only the newest that waits runs
	QueueVerify    = "verify"    // as serialise, and each is baked before the next begins
)

// Step is one step of a canary: the share of the traffic, then what has to be
// waited for before the next.
type Step struct {
	Weight  int   `json:"weight"`            // percent, 1 to 100
	PauseMS int64 `json:"pauseMs,omitempty"` // time that has to pass
	Approve bool  `json:"approve,omitempty"` // a person that has to approve
}

// Match picks requests by a header or a cookie, whose value has to be equal.
type Match struct {
	Header string `json:"header,omitempty"`
	Cookie string `json:"cookie,omitempty"`
	Value  string `json:"value"`
}

// Analysis compares the new set with the old, at each step of a canary and while
// baking. Too little to compare is neither good nor bad: it is waited for.
type Analysis struct {
	Requests   int     `json:"requests"`             // of the new set that there have to be, at least
	Errors     string  `json:"errors,omitempty"`     // most share of 5xx and broken answers, a decimal percentage such as "1.5"; empty: not looked at
	Slower     string  `json:"slower,omitempty"`     // most that the quantile may be of the old set's, a decimal factor such as "1.5"; empty: not looked at
	Quantile   int     `json:"quantile,omitempty"`   // per mille, such as 950
	WindowMS   int64   `json:"windowMs"`             // how long evidence is waited for before the rollout gives up
	Prometheus string  `json:"prometheus,omitempty"` // base URL
	Secret     string  `json:"secret,omitempty"`     // name of the secret that Prometheus asks for: a token, or user:password; empty: none
	Queries    []Query `json:"queries,omitempty"`    // of Prometheus, in file order
}

// Query is one instant query of Prometheus with the bounds of its value. The text may hold
// $new and $old: the releases' digests.
type Query struct {
	Name string `json:"name"`
	Expr string `json:"expr"`
	Min  string `json:"min,omitempty"` // decimal; empty: no bound
	Max  string `json:"max,omitempty"` // decimal; empty: no bound
}

// Window is a time in which nothing is deployed by itself.
type Window struct {
	Days  []string `json:"days,omitempty"`  // mon to sun; empty: every day
	From  string   `json:"from"`            // 15:04
	To    string   `json:"to"`              // 15:04, of the next day if not after From
	Zone  string   `json:"zone"`            // IANA name, such as UTC
	Until string   `json:"until,omitempty"` // last day, 2006-01-02; empty: for ever
}

// Spec is everything that one instance is, from start to end. Two instances with
// the same Spec.Digest are interchangeable.
type Spec struct {
	Kind         string            `json:"kind,omitempty"`     // Component.Kind, if not a service; releases of older versions have none
	Artifact     digest.Digest     `json:"artifact"`           // OCI manifest
	Tree         digest.Digest     `json:"tree"`               // seal of the artifact's root file system (EROFS metadata image)
	Settings     digest.Digest     `json:"settings"`           // seal of the settings layer: config files, mount points
	Files        []ConfigFile      `json:"files,omitempty"`    // what the settings layer adds, sorted by path
	Command      []string          `json:"command"`            //
	WorkDir      string            `json:"workDir"`            //
	UID          int               `json:"uid"`                //
	GID          int               `json:"gid"`                //
	Port         int               `json:"port,omitempty"`     //
	Env          map[string]string `json:"env,omitempty"`      //
	Health       *Health           `json:"health,omitempty"`   //
	MilliCPU     int64             `json:"milliCpu,omitempty"` // thousandths of a CPU; 0: no limit
	Memory       int64             `json:"memory,omitempty"`   // bytes; 0: no limit
	PIDs         int64             `json:"pids,omitempty"`     // 0: no limit
	StopSignal   string            `json:"stopSignal"`         // e.g. SIGTERM
	StopGraceMS  int64             `json:"stopGraceMs"`        // milliseconds before SIGKILL
	Tmpfs        []Tmpfs           `json:"tmpfs,omitempty"`    // sorted by path
	Volumes      []Mount           `json:"volumes,omitempty"`  // sorted by path
	Secrets      []Secret          `json:"secrets,omitempty"`  // sorted by name
	Capabilities []string          `json:"capabilities,omitempty"`
}

// Mount is where an instance finds a volume.
type Mount struct {
	Path     string `json:"path"`
	Volume   string `json:"volume"` // name within the environment
	Mode     string `json:"mode"`   // VolumeExclusive or VolumeShared
	ReadOnly bool   `json:"readOnly,omitempty"`
	Snapshot bool   `json:"snapshot,omitempty"` // as the volume has it
}

// Secret names one version of a secret and says how the instance gets it. The value is
// nowhere but in the server's encrypted store and in the memory of the instance.
type Secret struct {
	Name    string        `json:"name"`
	Version int           `json:"version"`       // from 1, grows with every rotation; 0: it was never set when the release was made, so no instance can start
	Sealed  digest.Digest `json:"sealed"`        // of the encrypted value: two servers' version 1 are not mistaken for each other; empty with version 0
	Path    string        `json:"path"`          // file on a private tmpfs, mode 0400, owned by the instance's user
	Env     string        `json:"env,omitempty"` // variable that holds the value too; empty: none
}

// ConfigFile names a config file of the settings layer.
type ConfigFile struct {
	Path   string        `json:"path"` // absolute
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Mode   uint32        `json:"mode"`
	UID    int           `json:"uid,omitempty"`
	GID    int           `json:"gid,omitempty"`
}

// Health is a probe; all durations in milliseconds. See definition.Health.
type Health struct {
	HTTP       string   `json:"http,omitempty"` // path; empty: TCP connect, or Exec
	Exec       []string `json:"exec,omitempty"` // command run in a sealed twin of the instance; 0 is healthy
	IntervalMS int64    `json:"intervalMs"`
	TimeoutMS  int64    `json:"timeoutMs"`
	Successes  int      `json:"successes"`
	Failures   int      `json:"failures"`
	StartMS    int64    `json:"startMs"`
	SettleMS   int64    `json:"settleMs,omitempty"` // how long it has to be ready in a row before it counts as ready
}

// Tmpfs is a writable place of an instance.
type Tmpfs struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
	Mode uint32 `json:"mode"`
}

// Route is where requests for a component arrive.
type Route struct {
	Host   string  `json:"host,omitempty"`   // empty: any
	Path   string  `json:"path,omitempty"`   // prefix; empty with TCP
	TCP    int     `json:"tcp,omitempty"`    // port of the component's stable address; 0: an http route
	Listen string  `json:"listen,omitempty"` // with TCP: host:port on the host that leads there too; empty: none
	HoldMS int64   `json:"holdMs"`           // how long a request or a new connection waits for a ready backend
	Drains *Drains `json:"drains,omitempty"` // nil: drainMs for every kind
}

// Drains are the times that what is under way may go on after the switch, by kind,
// in milliseconds; 0: the component's drainMs.
type Drains struct {
	RequestMS   int64 `json:"requestMs,omitempty"`
	WebSocketMS int64 `json:"webSocketMs,omitempty"`
	StreamMS    int64 `json:"streamMs,omitempty"` // server-sent events
	GRPCMS      int64 `json:"grpcMs,omitempty"`
	TCPMS       int64 `json:"tcpMs,omitempty"`
}
