package proof

import (
	"fmt"
	"slices"
	"time"

	"github.com/ashlar-infra/ashlar/internal/record"
)

// Result is how a check ended.
type Result string

// The results. A check that could not be made is never left out.
const (
	Done    Result = "done"
	Failed  Result = "failed"
	NotDone Result = "NOT done"
)

// The names of the checks.
const (
	TrustRoot  = "trust-root" // the trust root in the file goes on from the one that is given, or the other way round
	Checkpoint = "checkpoint" // the record's log is known, signed this, and enough witnesses saw it
	Record     = "record"     // every entry in the file is in the record
	Ordered    = "instance"   // the record tells that it was ordered, by which release; it is what that release says
	Release    = "release"    // the document is the one that the record names
	Artifact   = "artifact"   // the manifest is the one that the release names
	Tree       = "tree"       // the manifest's layers give the sealed trees that the release names
	Ledger     = "ledger"     // every entry of the tree is explained
	Signature  = "signature"  // and so on: statements
	Provenance = "provenance"
	SPDX       = "spdx"
	CycloneDX  = "cyclonedx"
	Rebuild    = "rebuild"
	Approval   = "approval"
	Summary    = "summary"   // the server's own: that the release passed the policy of the record's verdict for the environment
	Admission  = "admission" // the record has the verdict of the environment's policy
	Verdict    = "verdict"   // facts and policy are those that the record names, the facts' statements are believed, and judged again it comes to the same
	Bytes      = "bytes"     // the files on disk and the mounts of the instances are those of the sealed trees
)

// Usual are the checks that have to be done for a proof to be accepted, if nobody asks
// for others.
func Usual() []string {
	return []string{TrustRoot, Checkpoint, Record, Ordered, Release, Artifact, Tree, Signature}
}

// Names are all checks, in the order in which they are made.
func Names() []string {
	return []string{TrustRoot, Checkpoint, Record, Ordered, Release, Artifact, Tree, Ledger, Signature, Provenance, SPDX, CycloneDX, Rebuild, Approval, Summary, Admission, Verdict, Bytes}
}

// Check is one check of one thing.
type Check struct {
	Name    string `json:"name"`
	About   string `json:"about,omitempty"` // an instance, COMPONENT of a release, or empty: the whole
	Result  Result `json:"result"`
	What    string `json:"what"`              // one sentence without a final dot
	Verdict string `json:"verdict,omitempty"` // of a statement, checkpoint or trust root that failed
}

// Report is what was checked.
type Report struct {
	App       string    `json:"app"`
	Env       string    `json:"env"`
	Host      string    `json:"host,omitempty"`
	Taken     time.Time `json:"taken"`
	Instances int       `json:"instances"`
	Checks    []Check   `json:"checks"`
	Fresh     Freshness `json:"fresh"`
}

// Freshness says how old the evidence is.
type Freshness struct {
	Size      int64                `json:"size"`               // entries of the record then
	LastEntry time.Time            `json:"lastEntry,omitzero"` // the newest time in an entry that is proven: the evidence is not older, if the server's clock is right
	Seen      []record.Cosignature `json:"seen,omitempty"`     // by witnesses: the evidence is not younger than they say
}

// Lacking gives the checks that failed, and of those that are asked for the ones that
// were not done, be it that there was nothing to check. None: the proof is accepted.
func (r Report) Lacking(required []string) []Check {
	var out []Check
	for _, c := range r.Checks {
		if c.Result == Failed || c.Result == NotDone && slices.Contains(required, c.Name) {
			out = append(out, c)
		}
	}
	for _, name := range required {
		if !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == name }) {
			out = append(out, Check{Name: name, Result: NotDone, What: "nothing in the proof is there to be checked"})
		}
	}
	return out
}

func (r *Report) done(name, about, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, About: about, Result: Done, What: fmt.Sprintf(format, args...)})
}

func (r *Report) notDone(name, about, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, About: about, Result: NotDone, What: fmt.Sprintf(format, args...)})
}

func (r *Report) fail(name, about, verdict, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, About: about, Result: Failed, What: fmt.Sprintf(format, args...), Verdict: verdict})
}

// Add takes in a check that was made elsewhere.
func (r *Report) Add(c Check) { r.Checks = append(r.Checks, c) }
