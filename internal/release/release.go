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
	Strategy   string               `json:"strategy"`
	Listen     string               `json:"listen,omitempty"` // host:port of the http router
	Keep       int                  `json:"keep"`             // known-good releases that gc keeps
	Components map[string]Component `json:"components"`
}

// Component is one component in one environment: what each instance is, how many
// there are and how they are routed. Only a change of Spec replaces instances.
type Component struct {
	Spec     Spec   `json:"spec"`
	Replicas int    `json:"replicas"`
	DrainMS  int64  `json:"drainMs"` // milliseconds that requests in flight may go on
	Route    *Route `json:"route,omitempty"`
}

// Spec is everything that one instance is, from start to end. Two instances with
// the same Spec.Digest are interchangeable.
type Spec struct {
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
	Capabilities []string          `json:"capabilities,omitempty"`
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
	HTTP       string `json:"http,omitempty"` // path; empty: TCP connect
	IntervalMS int64  `json:"intervalMs"`
	TimeoutMS  int64  `json:"timeoutMs"`
	Successes  int    `json:"successes"`
	Failures   int    `json:"failures"`
	StartMS    int64  `json:"startMs"`
}

// Tmpfs is a writable place of an instance.
type Tmpfs struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
	Mode uint32 `json:"mode"`
}

// Route is where requests for a component arrive.
type Route struct {
	Host   string `json:"host,omitempty"` // empty: any
	Path   string `json:"path"`           // prefix
	HoldMS int64  `json:"holdMs"`         // how long a request waits for a ready backend
}
