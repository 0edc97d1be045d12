// Package definition reads ashlar.yaml, the declarative source of an
// application. It is strict: an unknown key, a wrong type or an impossible value
// is an error with its file, line and column, and all of them are reported at
// once. One JSON Schema is the source of validation, editor support and the
// reference page.
//
// Start at Parse. The types here are what the rest of the program works
// with: defaults filled in, names checked, nothing left as text that has a type. What
// a build has nothing to add to has the release's own types.
package definition

import (
	"time"

	"github.com/ashlar-infra/ashlar/internal/release"
)

// Definition is one parsed and validated ashlar.yaml.
type Definition struct {
	App          string        // DNS label
	Components   []Component   // in file order; at least one
	Environments []Environment // in file order; at least one
	Platforms    []string      // GOARCH of what is built besides this machine's; the operating system is linux
	Dir          string        // directory of the file: relative paths in it start here
}

// Component is one part of the application that is built into an artifact of
// its own and runs as one or more instances.
type Component struct {
	Name     string               // DNS label, unique
	Kind     string               // release.KindService and so on
	Needs    []string             // names of components, sorted
	Schemas  []release.DataSchema // sorted by Name
	Build    []Source             // combined in order, later ones win; at least one
	Settings Settings             // how it runs and is routed, before an environment overrides
}

// Source is one input of a build. Exactly one field is set.
type Source struct {
	Go     *GoSource
	Files  *FilesSource
	Debian *DebianSource
	Image  *ImageSource
	Docker *DockerSource
	Where  string // file:line:column of the source, for errors
}

// GoSource builds a main package, statically, with -trimpath.
type GoSource struct {
	Package string   // import path or ./path relative to the definition
	To      string   // absolute destination path; default /usr/bin/<component>
	Tags    []string // build tags
	LDFlags []string // passed to -ldflags, for -X settings
}

// FilesSource copies files that match globs.
type FilesSource struct {
	From    []string // globs relative to the definition, ** allowed; a pattern that matches nothing is an error
	Base    string   // prefix (relative to the definition) that is stripped from a match before it is joined to To; empty: globBase of each pattern
	To      string   // absolute destination directory, or the file itself when From is one plain file and To has no trailing slash
	Mode    *uint32  // permission bits of files; default 0644, or 0755 where the source has an executable bit
	UID     int      // owner
	GID     int      // group
	Exclude []string // globs relative to the definition
}

// DebianSource installs packages with their dependency closure, as named in ashlar.lock.
type DebianSource struct {
	Suite      string            // e.g. bookworm
	Archive    string            // base URL; default: the host's own apt sources for the suite
	Components []string          // archive areas (`areas:` in the file); default [main]
	Packages   []string          // names to install
	Exclude    []string          // dependencies that are left out on purpose
	Waive      map[string]string // package to the reason why its maintainer scripts may be ignored
	Minimise   *Minimise         // nil: everything stays
}

// Minimise leaves out of a closure what no program of the packages is linked with.
type Minimise struct {
	Keep    []string      // globs of paths relative to the artifact's root, ** allowed; one that matches nothing is an error
	Test    []string      // argv of the run test
	Timeout time.Duration // of the test
}

// ImageSource takes an image that others made, at the digest that ashlar.lock names.
type ImageSource struct {
	Path   string // of a layout or archive, relative to the definition or absolute
	Tag    string // which one, where there are several; empty: the only one
	Digest string // sha256:…, of its manifest or of an index that leads to it; empty: any
}

// DockerSource builds a Dockerfile with a program that is installed, and takes what comes
// out as an image.
type DockerSource struct {
	Context string            // directory, relative to the definition
	File    string            // relative to Context
	Target  string            // stage; empty: the last
	Args    map[string]string // of ARG
}

// Settings is how a component runs and is routed. An environment may override
// any part; see Merge.
type Settings struct {
	Command      []string          // argv; required without an image source; empty: the image's
	WorkDir      string            // absolute; default /, or empty with an image source: the image's
	User         string            // name or number, optionally :group; default 65532:65532, or empty likewise
	Port         int               // TCP port that the program listens on; 0: none
	Env          map[string]string //
	Files        []ConfigFile      // sorted by Path
	Health       *Health           // nil: ready as soon as it runs
	Resources    Resources         //
	Stop         Stop              //
	Drain        time.Duration     // how long requests in flight may go on once an instance left the route; default 10s
	Tmpfs        []Tmpfs           // sorted by Path
	Volumes      []release.Mount   // sorted by Path; Mode is that of the environment's volume
	Secrets      []release.Secret  // sorted by Name; a build adds Version and Sealed
	Capabilities []string          // Linux capabilities beyond none, e.g. CAP_NET_BIND_SERVICE
	Route        *Route            // nil: not routed
	Replicas     int               // instances; default 1
	Hooks        []release.Hook    // before, after, rollback
	Schedule     string            // of a job, fields separated by one space; empty: none
}

// ConfigFile is a file that belongs to the release rather than the artifact.
type ConfigFile struct {
	Path    string // absolute
	Content []byte // inline text, or read from the file that `from:` names
	Mode    uint32 // default 0644
	UID     int
	GID     int
}

// Health is a probe: HTTP or Exec when it is not empty, otherwise a TCP connect.
type Health struct {
	HTTP      string        // path of a GET that must answer 200 to 399
	Exec      []string      // command that must end with status 0
	Interval  time.Duration // between probes once ready; default 1s
	Timeout   time.Duration // of one probe; default 1s
	Successes int           // in a row to become ready; default 1
	Failures  int           // in a row to stop being ready; default 3
	Start     time.Duration // how long an instance may take to become ready; default 30s
	Settle    time.Duration // how long it has to be ready without a break before it counts; default 0
}

// Resources are limits; zero means none.
type Resources struct {
	MilliCPU int64 // thousandths of a CPU
	Memory   int64 // bytes
	PIDs     int64 // processes and threads; default 512
}

// Stop is how a running instance is asked to end.
type Stop struct {
	Signal string        // e.g. SIGTERM (default, or empty with an image source: the image's), SIGQUIT
	Grace  time.Duration // before SIGKILL; default 10s
}

// Tmpfs is a writable place: noexec, nosuid, nodev, private to the instance.
type Tmpfs struct {
	Path string // absolute
	Size int64  // bytes; default 16 MiB
	Mode uint32 // default 01777
}

// Route is where the requests or connections for a component arrive.
type Route struct {
	Host   string          // exact host name; empty: any
	Path   string          // prefix; default /; empty with TCP
	TCP    int             // port of the component's stable address; 0: an http route
	Listen string          // with TCP: host:port on the machine that leads there too; empty: none
	Hold   time.Duration   // how long a request or connection waits for a ready backend; default 5s
	Drains *release.Drains // nil: Settings.Drain for every kind
}

// Environment is a name bound to a platform, a strategy and overrides.
type Environment struct {
	Name       string
	Platform   string                    // "local"
	Rollout    release.Rollout           // how a release takes the place of the one before it; default blue-green
	Listen     string                    // host:port of the router for this environment; default 127.0.0.1:8080
	TLS        *release.TLS              // nil: plain HTTP
	Keep       int                       // how many known-good releases gc keeps; default 5
	Events     []release.Webhook         // in file order
	Volumes    map[string]release.Volume // every declared one
	Components map[string]Settings       // component to its merged settings: Component.Settings with the environment's overrides applied
}
