package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/policy"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

// maxDisbelieved bounds how many statements are named that are not believed.
const maxDisbelieved = 50

// Gather gives what is known of a release at a time. Anybody can put statements beside
// an artifact: one that is not believed takes nothing away.
func (a *Admission) Gather(ctx context.Context, now time.Time, p rollout.Plea) (policy.Facts, error) {
	stored, err := a.Release(ctx, p.Release)
	if err != nil {
		return policy.Facts{}, err
	}
	chain, err := a.Trust()
	if err != nil {
		return policy.Facts{}, err
	}
	state, _, err := a.Store.State(ctx, p.Key)
	if err != nil {
		return policy.Facts{}, err
	}
	f := policy.Facts{App: p.App, Env: p.Env, Kind: p.Kind, Actor: p.Actor, Now: now.UTC(), BreakGlass: p.BreakGlass}
	if state.Current != nil {
		f.Current = state.Current.Number
	}
	if chain != nil {
		r := chain.Latest()
		f.Trust = policy.Trust{Root: string(chain.ID()), Version: r.Version, Expires: r.Expires.UTC()}
	}
	g := &gathering{ctx: ctx, a: a, chain: chain, now: now, env: p.Env, release: p.Release, disbelieved: []string{}}
	f.Release = policy.Release{Digest: string(p.Release), Number: stored.Number, Created: stored.Created.UTC(), Components: []policy.Component{}, Approvals: []policy.Approval{}}
	f.Release.Statements, f.Release.Approvals = g.statements(p.Release)
	components := stored.Release.Environments[p.Env].Components
	for _, name := range slices.Sorted(maps.Keys(components)) {
		f.Release.Components = append(f.Release.Components, g.component(name, components[name]))
	}
	if f.Release.Vulnerabilities, err = g.vulnerabilities(f.Release.Components, components); err != nil {
		return policy.Facts{}, err
	}
	f.Release.Disbelieved = g.disbelieved
	f.Release.Ledger = len(components) > 0
	for _, c := range f.Release.Components {
		f.Release.Ledger = f.Release.Ledger && c.Listed
	}
	f.Release.Stays, err = a.staysOf(ctx, p.App, p.Release)
	return f, err
}

// gathering is one call of Gather.
type gathering struct {
	ctx         context.Context // of the one call
	a           *Admission
	chain       *trust.Chain
	now         time.Time
	env         string
	release     digest.Digest
	excused     []excuse
	disbelieved []string
}

func (g *gathering) doubt(format string, args ...any) {
	if len(g.disbelieved) < maxDisbelieved {
		g.disbelieved = append(g.disbelieved, fmt.Sprintf(format, args...))
	}
}

// believed is a statement that counts, and the bundle that it stands in.
type believed struct {
	trust.Verified
	bundle digest.Digest
}

// believed are the statements about something that count. A kind of which too few keys
// of its role speak does not, but for those whose policy counts the speakers.
func (g *gathering) believed(about digest.Digest) []believed {
	bundles, err := g.a.Attached(about)
	if err != nil {
		g.doubt("the statements about %s cannot be listed: %v", about, err)
		return nil
	}
	if g.chain == nil {
		if len(bundles) > 0 {
			g.doubt("%d statements about %s: there is no trust root (ashlar trust install FILE)", len(bundles), about)
		}
		return nil
	}
	if err := g.chain.Fresh(g.now); err != nil {
		g.doubt("%d statements about %s: %v", len(bundles), about, err)
		return nil
	}
	var out []believed
	speakers := map[string]map[trust.KeyID]bool{}
	for _, d := range bundles {
		v, err := g.a.verify(g.chain, d, about, g.now)
		if err != nil {
			var proven digest.Digest
			if proven, err = g.record(d, about, bundles, err); err == nil && slices.Contains(bundles, proven) {
				continue // it has its turn
			}
			if err == nil {
				d = proven
				v, err = g.a.verify(g.chain, d, about, g.now)
			}
		}
		if err != nil {
			g.doubt("the statement %s about %s: %v", short(d), short(about), err)
			continue
		}
		if speakers[v.Statement.PredicateType] == nil {
			speakers[v.Statement.PredicateType] = map[trust.KeyID]bool{}
		}
		speakers[v.Statement.PredicateType][v.Key] = true
		out = append(out, believed{v, d})
	}
	return slices.DeleteFunc(out, func(v believed) bool {
		k, _ := trust.KindOf(v.Statement.PredicateType)
		need, got := g.chain.Latest().Roles[k.Role].Threshold, len(speakers[v.Statement.PredicateType])
		if k.Name == "approval" || k.Name == "rebuild" || got >= need {
			return false
		}
		g.doubt("%s of %s: %d keys of the role %s say so; %d are needed", k.Name, short(about), got, k.Role, need)
		return true
	})
}

// statements gives the statements about a release document, and those of them that
// approve it for the environment.
func (g *gathering) statements(d digest.Digest) ([]policy.Statement, []policy.Approval) {
	statements, approvals := []policy.Statement{}, []policy.Approval{}
	for _, v := range g.believed(d) {
		s := statement(v)
		statements = append(statements, s)
		switch s.Kind {
		case "approval":
			approval, why := g.approval(v.Verified)
			if why != "" {
				g.doubt("the approval of %s by %s: %s", short(d), v.Owner, why)
				continue
			}
			approvals = append(approvals, approval)
		case "vex":
			g.excuse("", v.Verified)
		}
	}
	slices.SortStableFunc(approvals, func(a, b policy.Approval) int { return a.Index - b.Index })
	return statements, approvals
}

// approval reads an approval, or says why it does not count here.
func (g *gathering) approval(v trust.Verified) (policy.Approval, string) {
	p, err := policy.ParseApproval(v.Statement.Predicate)
	switch {
	case err != nil:
		return policy.Approval{}, "it cannot be read"
	case p.Environment != g.env:
		return policy.Approval{}, "it is for " + p.Environment
	case !p.Until.IsZero() && !g.now.Before(p.Until):
		return policy.Approval{}, "it ended on " + p.Until.UTC().Format(time.RFC3339)
	}
	return policy.Approval{Owner: v.Owner, Key: string(v.Key), Groups: []string{}, Index: int(v.Index), Reason: p.Reason, BreakGlass: p.BreakGlass}, ""
}

func (g *gathering) component(name string, c release.Component) policy.Component {
	out := policy.Component{Name: name, Artifact: string(c.Spec.Artifact), Statements: []policy.Statement{}}
	for _, v := range g.believed(c.Spec.Artifact) {
		s := statement(v)
		switch s.Kind {
		case "vex":
			g.excuse(name, v.Verified)
		case "rebuild":
			if _, err := policy.RebuildOf(v.Statement.Predicate, g.release, name, c.Spec.Artifact); err != nil {
				g.doubt("the rebuild of %s by %s: %v", name, v.Owner, err)
				continue
			}
		}
		out.Statements = append(out.Statements, s)
	}
	return out
}

// statement is what rules see of one.
func statement(v believed) policy.Statement {
	k, _ := trust.KindOf(v.Statement.PredicateType)
	return policy.Statement{
		Kind: k.Name, Owner: v.Owner, Role: string(k.Role), Key: string(v.Key), Digest: string(v.bundle), Log: v.Log, Index: int(v.Index),
		Says: policy.Says(k.Name, v.Statement.Predicate),
	}
}

func short(d digest.Digest) string {
	algorithm, hex, _ := strings.Cut(string(d), ":")
	return algorithm + ":" + hex[:min(12, len(hex))]
}
