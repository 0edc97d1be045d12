package policy

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// MaxFacts is the largest document of facts that is read, in bytes.
const MaxFacts = 8 << 20

// Facts is what is known of a release when it is asked for. Rules see it as the
// variables app, env, kind, actor, now, current, release, trust and breakGlass.
type Facts struct {
	App     string    `json:"app"`
	Env     string    `json:"env"`             // environment that the release is to go to
	Kind    string    `json:"kind"`            // how: "deploy" or "rollback"
	Actor   string    `json:"actor,omitempty"` // who asks for it
	Now     time.Time `json:"now"`             // when it is asked
	Current int       `json:"current"`         // number of the release that is live in the environment; 0: none
	Release Release   `json:"release"`
	Trust   Trust     `json:"trust"`

	BreakGlass string `json:"breakGlass"` // why it should be admitted in spite of the rules; empty: it should not
}

// Release is what is known of the release.
type Release struct {
	Digest          string          `json:"digest"`
	Number          int             `json:"number"`
	Created         time.Time       `json:"created"`
	Components      []Component     `json:"components"`  // of this environment, by name
	Statements      []Statement     `json:"statements"`  // about the release document, that are believed
	Approvals       []Approval      `json:"approvals"`   // for this environment, that are believed
	Stays           []Stay          `json:"stays"`       // where it is or was live, oldest first
	Ledger          bool            `json:"ledger"`      // every component has a byte ledger, and the packages of all are known
	Disbelieved     []string        `json:"disbelieved"` // statements that were found and not believed, with the reason
	Vulnerabilities Vulnerabilities `json:"vulnerabilities"`
}

// Component is one component of the release.
type Component struct {
	Name       string      `json:"name"`
	Artifact   string      `json:"artifact"`   // digest of its OCI manifest
	Statements []Statement `json:"statements"` // about the artifact, that are believed
	Packages   int         `json:"packages"`   // how many packages it is known to be made of
	Listed     bool        `json:"listed"`     // its packages are known
}

// Statement is one that a key made whose role it is to say so.
type Statement struct {
	Kind   string            `json:"kind"`   // signature, vex, provenance, spdx, cyclonedx, test-result, rebuild, approval or summary
	Owner  string            `json:"owner"`  // of the key, by the trust root
	Role   string            `json:"role"`   // of the key: release, builder, rebuilder, approver or deployer
	Key    string            `json:"key"`    // SHA-256 of the public key, hex
	Digest string            `json:"digest"` // of the bundle that it stands in
	Log    string            `json:"log"`    // record that proves it; empty: none
	Index  int               `json:"index"`  // place there; -1: none
	Says   map[string]string `json:"says"`   // what it says, where that is short: builder and buildType (provenance); result (test-result); release and rebuilt (rebuild); result, resource, verifier, policy, time and levels (summary)
}

// Approval is an approver's word that the release may go to the environment.
type Approval struct {
	Owner      string   `json:"owner"`
	Key        string   `json:"key"`
	Groups     []string `json:"groups"` // of the policy, that the owner is in
	Index      int      `json:"index"`  // place in the record; -1: none
	Reason     string   `json:"reason"`
	BreakGlass bool     `json:"breakGlass"` // it is given to break the glass, and no approval otherwise
}

// Stay is a time in which the release was live in an environment.
type Stay struct {
	Env    string    `json:"env"`
	Since  time.Time `json:"since"`  // when the traffic was with it
	Till   time.Time `json:"till"`   // when another took its place; the year 1: it is live still
	Proven bool      `json:"proven"` // it baked as its rollout asks for, and counts as known good
}

// Vulnerabilities is what one database of vulnerabilities says of the release's packages.
type Vulnerabilities struct {
	Database string          `json:"database"` // digest of the database; empty: there is none, and nothing is known
	Date     time.Time       `json:"date"`     // of the newest thing that the database says
	Packages int             `json:"packages"` // how many were looked up
	Unlisted []string        `json:"unlisted"` // components whose packages are not known: nothing is said of those
	Found    []Vulnerability `json:"found"`
}

// Vulnerability is one of one package.
type Vulnerability struct {
	ID        string    `json:"id"`
	Component string    `json:"component"`
	Package   string    `json:"package"` // its purl
	Version   string    `json:"version"`
	Severity  string    `json:"severity"` // critical, high, medium, low, or unknown
	Fixed     string    `json:"fixed"`    // version in which it is mended; empty: in none
	Published time.Time `json:"published"`
	Excused   string    `json:"excused"` // why it does not count, by a VEX statement that is believed; empty: it counts
}

// Trust is by what the statements were judged.
type Trust struct {
	Root    string    `json:"root"`    // digest of its first version; empty: there is none, and nothing is believed
	Version int       `json:"version"` // that is in force
	Expires time.Time `json:"expires"`
}

// Marshal gives the facts in canonical JSON (RFC 8785).
func (f Facts) Marshal() ([]byte, error) {
	raw, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return jcs.Transform(raw)
}

// Canonical says whether a document is in the form that [Facts.Marshal] gives: there is one
// way to read it. Facts of an older version lack what this one would add.
func Canonical(document []byte) bool {
	again, err := jcs.Transform(document)
	return err == nil && bytes.Equal(again, document)
}

// Digest names the facts.
func (f Facts) Digest() (digest.Digest, error) {
	raw, err := f.Marshal()
	return digest.FromBytes(raw), err
}

// ParseFacts reads facts, as `ashlar policy facts` prints them. What is unknown or
// left out is refused or zero.
func ParseFacts(name string, text []byte) (Facts, error) {
	var f Facts
	if len(text) > MaxFacts {
		return f, fault.New(fault.Invalid, "the facts have more than %d bytes", MaxFacts).At(name)
	}
	if err := strict(text, &f); err != nil {
		return f, fault.New(fault.Invalid, "the facts cannot be read: %w", err).At(name).
			Mend("begin with what the server knows:  ashlar policy facts ENV > facts.json")
	}
	if f.Now.IsZero() || f.Env == "" || f.Kind == "" {
		return f, fault.New(fault.Invalid, "the facts say neither when, where nor how").At(name).Detail("needed: now, env, kind").
			Mend("begin with what the server knows:  ashlar policy facts ENV > facts.json")
	}
	return f, nil
}
