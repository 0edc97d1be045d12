package cli

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// Parts is what the commands do without a server, wired by the main program.
type Parts struct {
	Version string
	Build   func(ctx context.Context, q BuildRequest) (Built, error)
	Export  func(ctx context.Context, q ExportRequest) error
	Check   func(ctx context.Context, q CheckRequest) (CheckReport, error)
	Seals   func(dir string) (Seals, error)
	Doctor  func(ctx context.Context, q DoctorRequest) []api.Check
	Serve   func(ctx context.Context, q ServeRequest) error
	Route   func(ctx context.Context, q RouteRequest) error
	Trial   func(ctx context.Context, in io.Reader, out io.Writer) error // what [TrialCommand] does
	Log     LogParts
	Keys    KeyParts

	Statements StatementParts
	Registry   RegistryParts
	Proof      ProofParts
	Rebuild    RebuildParts
	Judge      func(ctx context.Context, q policy.Question) (policy.Answer, error) // without a server
}

// BuildRequest asks for artifacts and a release of a definition.
type BuildRequest struct {
	Dir        string // state directory
	File       string // ashlar.yaml
	Definition *definition.Definition
	Update     bool             // resolve external inputs anew
	Locked     bool             // fail rather than change ashlar.lock
	Platforms  bool             // build for the definition's other platforms too
	Untested   bool             // leave out the run tests
	Anew       bool             // it is compared with another: build Dockerfiles without caches, whatever is locked
	Progress   func(BuildEvent) // called one at a time
}

// BuildEvent is a sign of progress.
type BuildEvent struct {
	Component string
	Step      string
	Text      string
	Done      bool
	Reused    bool
	Count     int
	Total     int
	Took      time.Duration
}

// Built is what a build made.
type Built struct {
	Release    release.Release
	Components []BuiltComponent
	Took       time.Duration
	Unlock     func() // lets garbage collection in again; call it once the release is in the record
}

// BuiltComponent is one artifact.
type BuiltComponent struct {
	Name     string        `json:"name"`
	Artifact digest.Digest `json:"artifact"`
	Seal     digest.Digest `json:"seal"`
	Ledger   digest.Digest `json:"ledger,omitempty"`
	Files    int           `json:"files"`
	Bytes    int64         `json:"bytes"`
	Reused   bool          `json:"reused"`          // nothing had to be made
	Index    digest.Digest `json:"index,omitempty"` // of its artifacts for all platforms; empty: there is one alone

	Platforms []BuiltPlatform `json:"platforms,omitempty"` // those of the index
}

// BuiltPlatform is the artifact for one platform.
type BuiltPlatform struct {
	Arch     string        `json:"arch"` // GOARCH
	Artifact digest.Digest `json:"artifact"`
	Ledger   digest.Digest `json:"ledger,omitempty"`
}

// ExportRequest asks for an artifact as an OCI layout.
type ExportRequest struct {
	Dir      string        // state directory
	Artifact digest.Digest // or an index of artifacts
	Tag      string
	To       string // directory, or file that ends in .tar
}

// Seals reads sealed trees without mounting them.
type Seals interface {
	image.Opener
	// Find gives the seal whose digest begins with prefix (at least 6 digits).
	Find(prefix string) (digest.Digest, error)
	// Tree reads the file tree of a seal.
	Tree(seal digest.Digest) (image.Tree, error)
	// Ledger reads the ledger of an artifact.
	Ledger(d digest.Digest) (*ledger.Book, error)
	// Changes gives what makes the tree of one spec out of another's.
	Changes(from, to release.Spec) ([]image.Change, error)
	// Verify re-hashes a seal and everything in it.
	Verify(ctx context.Context, seal digest.Digest) (SealReport, error)
}

// SealReport is the outcome of re-hashing a sealed tree.
type SealReport struct {
	Seal    digest.Digest `json:"seal"`
	Files   int           `json:"files"`
	Bytes   int64         `json:"bytes"`
	Damaged []string      `json:"damaged,omitempty"` // paths, with what is wrong
}

// DoctorRequest says what the checks are about.
type DoctorRequest struct {
	Dir, Runc, Shim string
}

// ServeRequest says how a server runs.
type ServeRequest struct {
	Dir    string // state directory
	RunDir string
	Runc   string // OCI runtime; empty: beside this program, then in PATH
	Shim   string // ashlar-shim; empty: likewise
	Log    LogOptions

	Deployer       DeployerOptions
	SecretIdentity string // file that opens the secrets; empty: in the state directory
	RouterMetrics  string // of RouteRequest
	Notary         NotaryOptions
}

// DeployerOptions says with which key the server signs what its policies verified.
type DeployerOptions struct {
	Key        string // file or address; empty: the one of the role in Dir, if there is one
	Dir        string // empty: there is none to look in
	Passphrase func() ([]byte, error)
}

// RouteRequest says how a router runs.
type RouteRequest struct {
	RunDir   string
	TakeOver bool   // from the router that runs
	ACME     string // directory that keeps what was got by ACME; empty: "acme" in RunDir
	Metrics  string // loopback address for Prometheus; empty: none
}

// LogOptions says how the server narrates.
type LogOptions struct {
	Level string // debug, info, warn, error
	JSON  bool
}
