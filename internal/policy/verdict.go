package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Outcome is what became of one rule.
type Outcome string

// The outcomes of a rule.
const (
	Holds   Outcome = "holds"
	Fails   Outcome = "fails"
	Errs    Outcome = "error"   // it could not be evaluated, which denies
	Skipped Outcome = "skipped" // it does not apply to this kind of request
)

// Verdict is what a policy says of facts.
type Verdict struct {
	Admitted bool          `json:"admitted"`
	Policy   digest.Digest `json:"policy"`
	Facts    digest.Digest `json:"facts"`
	At       time.Time     `json:"at"`
	Kind     string        `json:"kind"`
	Rules    []Judged      `json:"rules"`           // in the order of the policy
	Short    []string      `json:"short,omitempty"` // the facts that rules looked at, a few words each

	// BrokenBy are the approvers for whose word the release is admitted although rules
	// fail; empty otherwise.
	BrokenBy []string `json:"brokenBy,omitempty"`
}

// Judged is one rule of a verdict.
type Judged struct {
	Name    string   `json:"name"`
	Why     string   `json:"why"`
	Outcome Outcome  `json:"outcome"`
	What    string   `json:"what,omitempty"`   // with Errs: the error
	Looked  []Looked `json:"looked,omitempty"` // what it looked at
	Mend    []string `json:"mend,omitempty"`   // what would make it hold, where that is known
}

// Looked is one part of a rule and what it came to.
type Looked struct {
	What string `json:"what"` // the part, as CEL
	Came string `json:"came"` // to what, and from which facts
	OK   bool   `json:"ok"`   // it was true
}

// Failing lists the rules that keep the release out.
func (v Verdict) Failing() []Judged {
	return slices.DeleteFunc(slices.Clone(v.Rules), func(r Judged) bool { return r.Outcome == Holds || r.Outcome == Skipped })
}

// Words says in one line why the release is refused; empty: it is not.
func (v Verdict) Words() string {
	var out []string
	for _, r := range v.Failing() {
		text := r.Name
		switch {
		case r.Outcome == Errs:
			text += " could not be evaluated: " + r.What
		default:
			for _, l := range r.Looked {
				if !l.OK {
					text += ": " + l.Came
					break
				}
			}
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// Data gives the verdict as data of an entry of the record: few and small.
func (v Verdict) Data() map[string]string {
	data := map[string]string{"policy": string(v.Policy), "facts": string(v.Facts)}
	for _, r := range v.Rules {
		text := string(r.Outcome)
		if r.What != "" {
			text += ": " + clip(r.What, 200)
		}
		data["rule."+r.Name] = text
	}
	for i, s := range v.Short[:min(len(v.Short), 20)] {
		data[fmt.Sprintf("fact.%02d", i+1)] = clip(s, 300)
	}
	if len(v.BrokenBy) > 0 {
		data["breakGlass"] = strings.Join(v.BrokenBy, ", ")
	}
	return data
}

// clip cuts text to about n bytes at a boundary of characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
