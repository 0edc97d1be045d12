package policy

import (
	"encoding/json"
	"errors"
	"time"
)

// ApprovalPredicate is what a statement of the kind approval says. It is about the digest
// of a release document.
type ApprovalPredicate struct {
	Environment string    `json:"environment"`
	Reason      string    `json:"reason,omitempty"`
	BreakGlass  bool      `json:"breakGlass,omitempty"` // in spite of the policy, and nothing else
	Until       time.Time `json:"until,omitzero"`       // from then on it does not count; the year 1: it counts for ever
}

// ParseApproval reads the predicate of an approval. What is unknown in it is refused: it
// may say less than it seems to.
func ParseApproval(text []byte) (ApprovalPredicate, error) {
	var p ApprovalPredicate
	if err := strict(text, &p); err != nil {
		return p, err
	}
	if p.Environment == "" {
		return p, errors.New("it names no environment")
	}
	return p, nil
}

// Marshal gives the predicate as JSON.
func (p ApprovalPredicate) Marshal() ([]byte, error) { return json.Marshal(p) }
