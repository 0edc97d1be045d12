package policy

import "github.com/ashlar-infra/ashlar/internal/fault"

// Question is what the program that judges is asked, and Answer what it says: one JSON
// value a line each.
type Question struct {
	Name     string `json:"name"`            // of the document, for messages
	Document []byte `json:"document"`        // the policy
	Facts    *Facts `json:"facts,omitempty"` // nil: only whether the policy is sound is asked
}

// Answer has the verdict, or what is wrong with the policy.
type Answer struct {
	Verdict *Verdict   `json:"verdict,omitempty"`
	Faults  fault.List `json:"faults,omitempty"`
}
