package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/image"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

func (p *program) planCommand() *cobra.Command {
	var flags buildFlags
	cmd := &cobra.Command{
		Use:   "plan [ENV]",
		Short: "Show what a deploy would change, and change nothing",
		Long: "Builds what changed and shows which instances of the environment a deploy would replace, and why:\n" +
			"down to files and settings. Nothing is deployed, and the release gets no number yet.",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: p.completeEnvs,
		RunE: func(cmd *cobra.Command, args []string) error {
			prep, err := p.prepare(cmd.Context(), args, flags, false)
			if err != nil {
				return err
			}
			defer prep.built.Unlock()
			if p.json() {
				p.out.json(prep.view())
				return nil
			}
			p.showPlan(prep.plan, prep.files)
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

// prepared is a build with what deploying it would change.
type prepared struct {
	app, env string
	built    Built
	doc      []byte
	plan     api.Plan
	files    map[string][]string // by component: what changes in its sealed tree
	ring     keyring             // keys that sign what was built
}

// planView is what a plan is as JSON.
type planView struct {
	api.Plan
	Files map[string][]string `json:"files,omitempty"` // by component: changes in its sealed tree
}

func (prep *prepared) view() planView { return planView{prep.plan, prep.files} }

// prepare builds and asks the server for the plan. If a deploy is to follow, the server
// is told so before the build.
func (p *program) prepare(ctx context.Context, args []string, flags buildFlags, deploying bool) (*prepared, error) {
	def, err := p.definition()
	if err != nil {
		return nil, err
	}
	env, err := environmentOf(def, p.file, args)
	if err != nil {
		return nil, err
	}
	if deploying {
		err = p.tellAhead(ctx, def.App, env)
	} else {
		err = p.needServer(ctx)
	}
	if err != nil {
		return nil, err
	}
	var ring keyring
	if deploying {
		if ring, err = p.keyring(trust.RoleRelease, trust.RoleBuilder); err != nil {
			return nil, err
		}
	}
	built, err := p.build(ctx, def, env, flags)
	if err != nil {
		return nil, err
	}
	prep := &prepared{app: def.App, env: env, built: built, ring: ring}
	if err := p.plan(ctx, prep, deploying); err != nil {
		built.Unlock()
		return nil, err
	}
	return prep, nil
}

func (p *program) plan(ctx context.Context, prep *prepared, deploying bool) (err error) {
	if prep.doc, err = prep.built.Release.Canonical(); err != nil {
		return err
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if prep.plan, err = c.Plan(ctx, api.PlanRequest{App: prep.app, Env: prep.env, Document: string(prep.doc), Ahead: deploying}); err != nil {
		return err
	}
	prep.files = p.changedFiles(ctx, c, prep.plan, prep.built.Release)
	return nil
}

// changedFiles compares the sealed trees of components that are replaced. It is
// a service to the reader: what cannot be read is left out.
func (p *program) changedFiles(ctx context.Context, c *api.Client, plan api.Plan, next release.Release) map[string][]string {
	if plan.From == nil {
		return nil
	}
	from, err := c.Release(ctx, plan.App, string(plan.From.Digest))
	if err != nil {
		return nil
	}
	dir, err := p.stateDir()
	if err != nil {
		return nil
	}
	seals, err := p.parts.Seals(dir)
	if err != nil {
		return nil
	}
	out := map[string][]string{}
	for _, change := range plan.Changes {
		a := from.Release.Environments[plan.Env].Components[change.Component].Spec
		b := next.Environments[plan.Env].Components[change.Component].Spec
		if a.Tree == "" || b.Tree == "" || a.Tree == b.Tree {
			continue
		}
		changes, err := seals.Changes(a, b)
		if err != nil {
			continue
		}
		for _, c := range changes {
			out[change.Component] = append(out[change.Component], changeWords(c))
		}
	}
	return out
}

// changeWords renders one difference of two trees.
func changeWords(c image.Change) string {
	words := string(c.Kind) + "  /" + c.Path
	if len(c.What) > 0 {
		words += "  " + strings.Join(c.What, ", ")
	}
	return words
}

// mostFiles is how many changed files a plan shows for a component.
const mostFiles = 10

func (p *program) showPlan(plan api.Plan, files map[string][]string) {
	if plan.Nothing {
		p.out.linef("nothing to change in %s: %s is live there", plan.Env, p.releaseWords(plan))
		return
	}
	p.out.linef("%s in %s", p.out.paint(bold, transition(plan)), plan.Env)
	for _, c := range plan.Changes {
		p.out.linef("")
		p.out.linef("  %s %s", p.out.paint(bold, c.Component), p.changeHead(plan, c))
		for _, r := range c.Reasons {
			p.out.linef("      %s", r)
		}
		list := files[c.Component]
		for _, f := range list[:min(len(list), mostFiles)] {
			p.out.linef("        %s", p.out.paint(faint, f))
		}
		if n := len(list) - mostFiles; n > 0 {
			p.out.linef("        and %d more", n)
		}
	}
	for _, r := range plan.Environment {
		p.out.linef("  environment: %s", r)
	}
	if words := strategyWords(plan.Rollout, plan.Course); plan.From != nil && words != rollout.BlueGreen {
		p.out.linef("")
		p.out.linef("  by %s", words)
	}
	for _, h := range plan.Hooks {
		p.out.linef("  hook %s: %s  %s  (at most %s)", h.When, h.Component, strings.Join(h.Command, " "), milliseconds(h.TimeoutMS))
	}
	p.out.linef("")
}

func (p *program) releaseWords(plan api.Plan) string {
	if plan.From == nil {
		return "nothing"
	}
	return "release " + number(plan.From.Number)
}

// transition says from which release to which.
func transition(plan api.Plan) string {
	to := "a new release"
	if plan.To.Number > 0 {
		to = "release " + number(plan.To.Number)
	}
	if plan.From == nil {
		return to + " (" + short(plan.To.Digest) + "), the first"
	}
	if plan.From.Digest == plan.To.Digest {
		return to + ", again"
	}
	return fmt.Sprintf("release %d -> %s (%s)", plan.From.Number, to, short(plan.To.Digest))
}

// changeHead says what happens to a component's instances.
func (p *program) changeHead(plan api.Plan, c release.ComponentChange) string {
	var ids []string
	for _, in := range plan.Instances {
		if in.Component == c.Component && in.Kind != release.Unchanged {
			ids = append(ids, in.ID)
		}
	}
	slices.Sort(ids)
	switch c.Kind {
	case release.Added:
		return p.out.paint(green, "added") + ", " + count(c.To, "instance") + " started"
	case release.Removed:
		return p.out.paint(red, "removed") + ", retires " + strings.Join(ids, ", ")
	case release.Replaced:
		return p.out.paint(yellow, "replaced") + ", " + count(c.To, "instance") + " in place of " + strings.Join(ids, ", ") + ", because of"
	case release.Scaled:
		return p.out.paint(yellow, "scaled") + ", the instances that run stay"
	case release.Rerouted:
		return p.out.paint(yellow, "rerouted") + ", the instances stay"
	case release.Adjusted:
		return p.out.paint(yellow, "adjusted") + ", the instances stay"
	}
	return "unchanged, " + count(c.To, "instance") + " stay"
}
