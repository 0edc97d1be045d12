// Package judge evaluates policies: CEL expressions (https://cel.dev) over the typed
// facts of package policy. What cannot be evaluated denies. Time, zones and facts are
// passed in, nothing can be called that is not a function of them, and an expression
// has a bound on what it may cost and hold.
//
// Only the program ashlar-judge links this package: the CEL library costs every start
// of a program a few milliseconds.
//
// Start at [Judge.Answer]. The functions that rules may call are in functions.go, what
// a verdict tells of a rule in explain.go.
package judge

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

// kept is how many policies a Judge keeps compiled.
const kept = 16

// Zones finds a time zone by name, as time.LoadLocation does.
type Zones func(name string) (*time.Location, error)

// Judge judges. It is not safe for concurrent use.
type Judge struct {
	env      *cel.Env
	zones    Zones
	compiled map[digest.Digest]*compiled
}

// New makes a judge.
func New(zones Zones) (*Judge, error) {
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	return &Judge{env: env, zones: zones, compiled: map[digest.Digest]*compiled{}}, nil
}

// Answer judges facts by a policy, or says what is wrong with the policy. It does not
// panic, whatever it is asked.
func (j *Judge) Answer(q policy.Question) (a policy.Answer) {
	defer func() {
		if r := recover(); r != nil {
			a = policy.Answer{Faults: fault.List{fault.New(fault.Internal, "the policy could not be judged: %v", r).At(q.Name)}}
		}
	}()
	c, err := j.compile(q.Name, q.Document)
	if err != nil {
		var list fault.List
		if !errors.As(err, &list) {
			list = fault.List{fault.Of(err)}
		}
		return policy.Answer{Faults: list}
	}
	if q.Facts == nil {
		return policy.Answer{}
	}
	v, err := c.judge(*q.Facts, j.zones)
	if err != nil {
		return policy.Answer{Faults: fault.List{fault.Of(err)}}
	}
	return policy.Answer{Verdict: &v}
}

// judge gives the verdict on facts.
func (c *compiled) judge(f policy.Facts, zones Zones) (policy.Verdict, error) {
	d, err := f.Digest()
	if err != nil {
		return policy.Verdict{}, err
	}
	v := policy.Verdict{Policy: c.policy.Digest, Facts: d, At: f.Now.UTC(), Kind: f.Kind, Admitted: true}
	f.Release.Approvals = slices.Clone(f.Release.Approvals)
	for i := range f.Release.Approvals {
		a := &f.Release.Approvals[i]
		a.Groups = c.policy.In(a.Owner)
	}
	for _, r := range c.rules {
		judged := policy.Judged{Name: r.Name, Why: r.Why, Outcome: policy.Skipped}
		if r.Applies(f.Kind) {
			judged = r.judge(&f, c.policy, zones)
		}
		v.Admitted = v.Admitted && (judged.Outcome == policy.Holds || judged.Outcome == policy.Skipped)
		for _, l := range judged.Looked {
			if !slices.Contains(v.Short, l.Came) {
				v.Short = append(v.Short, l.Came)
			}
		}
		v.Rules = append(v.Rules, judged)
	}
	if by := breakers(f, c.policy); !v.Admitted && len(by) > 0 {
		v.Admitted, v.BrokenBy = true, by
	}
	return v, nil
}

// breakers are those who agree that a release is admitted in spite of the rules; none
// if they are too few, or nobody asked for it.
func breakers(f policy.Facts, p *policy.Policy) []string {
	if f.BreakGlass == "" || p.BreakGlass == nil {
		return nil
	}
	var by []string
	for _, a := range f.Release.Approvals {
		if a.BreakGlass && slices.Contains(a.Groups, p.BreakGlass.Group) && !slices.Contains(by, a.Owner) {
			by = append(by, a.Owner)
		}
	}
	if len(by) < p.BreakGlass.Count {
		return nil
	}
	slices.Sort(by)
	return by
}
