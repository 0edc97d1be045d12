package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// The results of a summary.
const (
	Passed = "PASSED"
	Failed = "FAILED"
)

// Summary is the predicate of a statement of the kind summary: what somebody verified, by
// which policy, and what it came to (https://slsa.dev/spec/v1.0/verification_summary).
// What is unknown in one is passed over, as that asks for.
type Summary struct {
	Verifier     SummaryVerifier `json:"verifier"`
	TimeVerified time.Time       `json:"timeVerified"`
	ResourceURI  string          `json:"resourceUri"` // for what it was verified; ours: [Resource]
	Policy       SummaryResource `json:"policy"`
	Inputs       SummaryInputs   `json:"inputAttestations,omitempty"` // all statements by which it was judged
	Result       string          `json:"verificationResult"`          // Passed or Failed
	Levels       []string        `json:"verifiedLevels"`
	SLSAVersion  string          `json:"slsaVersion,omitempty"`

	Verdict *SummaryVerdict `json:"https://github.com/ashlar-infra/ashlar/predicate/summary/v1,omitempty"` // nil: it is not one of ours
}

// SummaryInputs are descriptors of attestations.
type SummaryInputs []SummaryResource

// SummaryVerifier names who verified.
type SummaryVerifier struct {
	ID string `json:"id"` // URI
}

// SummaryResource is an in-toto resource descriptor.
type SummaryResource struct {
	Name      string            `json:"name,omitempty"`
	URI       string            `json:"uri,omitempty"`
	Digest    map[string]string `json:"digest,omitempty"` // by algorithm, in hex
	MediaType string            `json:"mediaType,omitempty"`
}

// SummaryVerdict is where a verdict of ours is in the record.
type SummaryVerdict struct {
	Release digest.Digest `json:"release"`
	Number  int           `json:"number"`             // of the release
	Facts   digest.Digest `json:"facts"`              // by which it was judged
	Entry   int64         `json:"entry"`              // of the verdict, in the verifier's record
	Live    time.Time     `json:"live,omitzero"`      // when the rollout that was admitted ended live; the year 1: it has not yet
	Broken  []string      `json:"brokenBy,omitempty"` // approvers for whose word it was admitted although rules fail
}

// Resource names an environment of an application as a summary does.
func Resource(app, env string) string { return "ashlar:" + app + "/" + env }

// Summarise makes the summary of a verdict on facts. The level says no more than that
// there is provenance of every component, which is what was looked at.
func Summarise(verifier string, f Facts, passed bool, policy digest.Digest, v SummaryVerdict) Summary {
	v.Release, v.Number = digest.Digest(f.Release.Digest), f.Release.Number
	s := Summary{
		Verifier: SummaryVerifier{verifier}, TimeVerified: f.Now.UTC(), ResourceURI: Resource(f.App, f.Env),
		Policy: SummaryResource{URI: Resource(f.App, f.Env) + "/policy", Digest: digestSet(policy)},
		Result: Failed, Levels: []string{Failed}, SLSAVersion: "1.0", Verdict: &v,
	}
	if passed {
		level := "SLSA_BUILD_LEVEL_1"
		for _, c := range f.Release.Components {
			if !slices.ContainsFunc(c.Statements, func(s Statement) bool { return s.Kind == "provenance" }) {
				level = "SLSA_BUILD_LEVEL_0"
			}
		}
		s.Result, s.Levels = Passed, []string{level}
	}
	seen := map[string]bool{}
	add := func(all []Statement) {
		for _, x := range all {
			if !seen[x.Digest] {
				s.Inputs = append(s.Inputs, SummaryResource{Name: x.Kind, Digest: digestSet(digest.Digest(x.Digest)), MediaType: bundleType})
			}
			seen[x.Digest] = true
		}
	}
	add(f.Release.Statements)
	for _, c := range f.Release.Components {
		add(c.Statements)
	}
	return s
}

// bundleType is the media type of the statements (package trust).
const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

func digestSet(d digest.Digest) map[string]string {
	if d.Validate() != nil {
		return nil
	}
	return map[string]string{d.Algorithm().String(): d.Encoded()}
}

// Marshal gives the predicate as JSON.
func (s Summary) Marshal() ([]byte, error) { return json.Marshal(s) }

// PolicyDigest names the policy, if the summary does by SHA-256.
func (s Summary) PolicyDigest() digest.Digest {
	if hex := s.Policy.Digest["sha256"]; hex != "" {
		return digest.NewDigestFromEncoded(digest.SHA256, hex)
	}
	return ""
}

// ParseSummary reads the predicate of a summary, whoever made it.
func ParseSummary(text []byte) (Summary, error) {
	var s Summary
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	if s.Result != Passed && s.Result != Failed || s.Verifier.ID == "" || s.ResourceURI == "" || s.Policy.URI == "" || s.TimeVerified.IsZero() {
		return s, fmt.Errorf("it lacks result, verifier, resource, policy or time")
	}
	return s, nil
}

// PassedFor reads the predicate of a summary, and gives an error unless it says that what it
// is about passed this policy for this resource.
func PassedFor(text []byte, resource string, policy digest.Digest) (Summary, error) {
	s, err := ParseSummary(text)
	switch {
	case err != nil:
		return s, fmt.Errorf("it cannot be read: %w", err)
	case s.ResourceURI != resource:
		return s, fmt.Errorf("it is for %.60q", s.ResourceURI)
	case s.PolicyDigest() != policy:
		return s, fmt.Errorf("it is by the policy %.19s, not %.19s", s.PolicyDigest(), policy)
	case s.Result != Passed:
		return s, fmt.Errorf("it says %s", s.Result)
	}
	return s, nil
}
