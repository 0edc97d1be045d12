package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

// showTested explains a verdict. One that refuses is a fault as well.
func (p *program) showTested(t api.Tested) error {
	f := t.Facts
	switch v := t.Verdict; {
	case p.json():
		p.out.json(t)
	case v == nil:
		p.out.linef("%s/%s has no policy: every release is admitted", f.App, f.Env)
	default:
		p.out.linef("release %d to %s/%s by %s, asked at %s", f.Release.Number, f.App, f.Env, f.Kind, f.Now.UTC().Format(time.RFC3339))
		p.out.linef("policy %s, facts %s, trust root %s", short(v.Policy), short(v.Facts), trustWords(f.Trust))
		for _, r := range v.Rules {
			p.showRule(r)
		}
		for _, d := range f.Release.Disbelieved {
			p.out.linef("  not believed: %s", d)
		}
	}
	switch v := t.Verdict; {
	case v == nil:
		return nil
	case v.Admitted && len(v.BrokenBy) > 0:
		p.err.linef("it would be admitted: the glass is broken by %s", strings.Join(v.BrokenBy, ", "))
		return nil
	case v.Admitted:
		if !p.json() {
			p.out.linef("%s", p.out.paint(green, "it would be admitted"))
		}
		return nil
	}
	return fault.New(fault.Refused, "the policy of %s does not admit release %d: %s", f.Env, f.Release.Number, failing(*t.Verdict)).
		At(f.App + "/" + f.Env).Mend("see above what would change it")
}

func failing(v policy.Verdict) string {
	var names []string
	for _, r := range v.Failing() {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

func trustWords(t policy.Trust) string {
	if t.Root == "" {
		return "none: nothing is believed"
	}
	return fmt.Sprintf("version %d", t.Version)
}

func (p *program) showRule(r policy.Judged) {
	outcome := string(r.Outcome)
	switch r.Outcome {
	case policy.Holds:
		outcome = p.out.paint(green, outcome)
	case policy.Fails, policy.Errs:
		outcome = p.out.paint(red, outcome)
	}
	p.out.linef("%s  %s: %s", outcome, r.Name, r.Why)
	if r.What != "" {
		p.out.linef("    %s", r.What)
	}
	for _, l := range r.Looked {
		mark := "+"
		if !l.OK {
			mark = "-"
		}
		p.out.linef("    %s %s", mark, l.Came)
	}
	if len(r.Mend) > 0 {
		p.out.linef("    it would hold with: %s", strings.Join(r.Mend, "; and "))
	}
}
