// Package admission judges releases for the engine: it gathers what is known of one,
// which is package policy's facts, and has the environment's policy judge it, in a
// process of its own. What cannot be found out is an error, which keeps the release
// out; a statement that is not believed is not a fact, but is named among them.
//
// Facts come from the statements beside the release document and its artifacts, verified
// with the server's trust root; from the record, which tells where the release was live;
// and from a database of vulnerabilities, by the packages of the components' ledgers.
//
// Start at [Admission.Admit] and [Admission.Gather]; TestGather shows what becomes of
// true and false statements.
package admission

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/osv"
	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// Store is what the server remembers.
type Store interface {
	// Policy gives the policy of an environment; nil if it has none.
	Policy(ctx context.Context, env rollout.Key) ([]byte, error)
	Environments(ctx context.Context) ([]rollout.Key, error)
	State(ctx context.Context, env rollout.Key) (rollout.State, int64, error)
	Entries(ctx context.Context, env rollout.Key, from, to int64) ([]record.Entry, error)
}

// Release is a release as it is stored.
type Release struct {
	Number  int
	Created time.Time
	Release release.Release
}

// Package is one package that a component is made of.
type Package struct {
	Name    osv.Name
	Version string
	PURL    string // without version
}

// Config is what an Admission is made of. The functions may be called concurrently.
type Config struct {
	Store    Store
	Release  func(ctx context.Context, d digest.Digest) (Release, error)
	Attached func(about digest.Digest) ([]digest.Digest, error) // bundles that are kept beside something
	Bundle   func(d digest.Digest) ([]byte, error)              // one of them
	Trust    func() (*trust.Chain, error)                       // nil: there is none
	Database func() (*osv.Database, error)                      // nil: there is none
	Packages func(c release.Component) ([]Package, bool, error) // false: they are not known
	Judge    func(context.Context, policy.Question) (policy.Answer, error)
	// Record has a statement that bears no proof recorded, and keeps it with the proof
	// beside what it is about, under the digest that it gives. Nil: nobody does.
	Record func(ctx context.Context, about digest.Digest, b trust.Bundle, key trust.PublicKey) (digest.Digest, error)
	// KeepFacts keeps the facts of a verdict on a release, durably, as long as the release
	// is kept. The record names them by their digest.
	KeepFacts func(ctx context.Context, release digest.Digest, facts []byte) error
}

// Admission is an engine.Admitter. It is safe for concurrent use.
type Admission struct {
	Config

	mu       sync.Mutex
	verified map[look]outcome                // what was found out about bundles
	recorded map[digest.Digest]digest.Digest // bundles without a proof, and the same with one
	stays    map[rollout.Key]*memory         // where releases were live, as far as the record was read
}

// New makes one; nothing is read yet.
func New(c Config) *Admission {
	return &Admission{Config: c, verified: map[look]outcome{}, recorded: map[digest.Digest]digest.Digest{}, stays: map[rollout.Key]*memory{}}
}

// Admit is engine.Admitter.Admit.
func (a *Admission) Admit(ctx context.Context, now time.Time, p rollout.Plea) (rollout.Admission, error) {
	doc, err := a.Store.Policy(ctx, p.Key)
	if err != nil {
		return rollout.Admission{}, err
	}
	if doc == nil {
		return rollout.Admission{Release: p.Release, Admitted: true, BreakGlass: ""}, nil
	}
	f, err := a.Gather(ctx, now, p)
	if err != nil {
		return rollout.Admission{}, err
	}
	v, err := a.Verdict(ctx, policy.Question{Name: "the policy of " + p.Env, Document: doc, Facts: &f})
	if err != nil {
		return rollout.Admission{}, err
	}
	facts, err := f.Marshal()
	if err != nil {
		return rollout.Admission{}, err
	}
	if d := digest.FromBytes(facts); d != v.Facts {
		return rollout.Admission{}, fault.New(fault.Internal, "other facts were judged (%s) than those that were gathered (%s)", v.Facts, d)
	}
	return rollout.Admission{
		Release: p.Release, Policy: v.Policy, Admitted: v.Admitted, Why: v.Words(), Details: lines(v), Data: v.Data(), Facts: facts,
		BreakGlass: strings.Join(v.BrokenBy, ", "),
	}, nil
}

// Keep is engine.Admitter.Keep.
func (a *Admission) Keep(ctx context.Context, release digest.Digest, facts []byte) error {
	return a.KeepFacts(ctx, release, facts)
}

// Verdict asks the judge. A policy that is not sound is an error.
func (a *Admission) Verdict(ctx context.Context, q policy.Question) (policy.Verdict, error) {
	answer, err := a.Judge(ctx, q)
	switch {
	case err != nil:
		return policy.Verdict{}, err
	case len(answer.Faults) > 0:
		return policy.Verdict{}, answer.Faults
	case answer.Verdict == nil:
		return policy.Verdict{}, fault.New(fault.Internal, "the policy was not judged")
	}
	return *answer.Verdict, nil
}

// lines tells which rules fail, and why.
func lines(v policy.Verdict) []string {
	var out []string
	for _, r := range v.Failing() {
		out = append(out, fmt.Sprintf("rule %s: %s", r.Name, r.Why))
		if r.What != "" {
			out = append(out, "  it could not be evaluated: "+r.What)
		}
		for _, l := range r.Looked {
			if !l.OK {
				out = append(out, "  "+l.Came)
			}
		}
		for _, m := range r.Mend {
			out = append(out, "  needed: "+m)
		}
	}
	return out
}

// Sound says whether a policy can be judged by: nil, or its mistakes.
func (a *Admission) Sound(ctx context.Context, name string, document []byte) error {
	answer, err := a.Judge(ctx, policy.Question{Name: name, Document: document})
	if err == nil && len(answer.Faults) > 0 {
		return answer.Faults
	}
	return err
}
