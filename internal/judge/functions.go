package judge

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/ashlar-infra/ashlar/internal/gate"
	"github.com/ashlar-infra/ashlar/internal/policy"
)

// function is one that rules may call.
type function struct {
	name   string
	usage  string // an example
	about  string // what it says, for people
	args   []*cel.Type
	result *cel.Type
	check  func(args []any, p *policy.Policy, zones Zones) string // arguments that are written out, others nil; what is wrong
	call   func(c *call, args []any) ref.Val
}

// call is what a function knows when it is called.
type call struct {
	facts  *policy.Facts
	policy *policy.Policy
	zones  Zones
	text   string // the call as it would be written
	notes  *[]note
}

// note is what a function found.
type note struct {
	policy.Looked
	mend string
}

// maxNotes bounds what one rule tells: a function may be called for each of many things.
const maxNotes = 30

func (c *call) found(ok bool, mend, format string, args ...any) ref.Val {
	if len(*c.notes) < maxNotes {
		*c.notes = append(*c.notes, note{policy.Looked{What: c.text, Came: fmt.Sprintf(format, args...), OK: ok}, mend})
	}
	return types.Bool(ok)
}

func (f function) declare() cel.EnvOption {
	return cel.Function(f.name, cel.Overload(f.name+"_rule", f.args, f.result, cel.LateFunctionBinding()))
}

func functionNames() []string {
	var names []string
	for _, f := range functions {
		names = append(names, f.name)
	}
	return names
}

// functions are all of them, in the order of the documentation.
var functions = []function{
	{
		name: "signedBy", usage: `signedBy("release-team")`, args: []*cel.Type{cel.StringType}, result: cel.BoolType, call: signedBy,
		about: "The release document is signed by a key of the role `release` whose owner is that one, or in that group.",
	}, {
		name: "builtBy", usage: `builtBy("ci")`, args: []*cel.Type{cel.StringType}, result: cel.BoolType, call: builtBy,
		about: "Of every component there is provenance by a key of the role `builder` whose owner is that one, or in that group.",
	}, {
		name: "rebuiltBy", usage: `rebuiltBy(2, "rebuilders")`, args: []*cel.Type{cel.IntType, cel.StringType}, result: cel.BoolType, check: quorum, call: rebuiltBy,
		about: "So many different owners of the group built every component of this release anew, and say that the release's artifact came out.",
	}, {
		name: "soaked", usage: `soaked("staging", duration("30m"))`, args: []*cel.Type{cel.StringType, cel.DurationType}, result: cel.BoolType, call: soaked,
		about: "The release was live in that environment for so long without a break, and baked there.",
	}, {
		name: "approvedBy", usage: `approvedBy(2, "operators")`, args: []*cel.Type{cel.IntType, cel.StringType}, result: cel.BoolType, check: quorum, call: approvedBy,
		about: "So many different owners of the group approved that the release goes to this environment. Approvals to break the glass do not count.",
	}, {
		name: "verifiedBy", usage: `verifiedBy("staging-server", "ashlar:shop/staging")`, args: []*cel.Type{cel.StringType, cel.StringType}, result: cel.BoolType, call: verifiedBy,
		about: "The newest verification summary of the release document for that resource, by a key of the role `deployer` whose owner is that one, or in that group, says that it passed. For a resource of another application, where there is none of the release, those of every component's artifact may say so; for one of this application they do not count, as a release is more than its artifacts.",
	}, {
		name: "noFixable", usage: `noFixable("critical", days(7))`, args: []*cel.Type{cel.StringType, cel.DurationType}, result: cel.BoolType, check: severity, call: noFixable,
		about: "The database of vulnerabilities has none of that severity or a worse one that is mended in a newer version, was published longer ago, and is not excused by a VEX statement. One whose severity is unknown counts as of any. Without a database, or where the packages of a component are not known, that cannot be said, which denies.",
	}, {
		name: "during", usage: `during("mon-fri", "09:00", "17:00", "Europe/Berlin")`, args: []*cel.Type{cel.StringType, cel.StringType, cel.StringType, cel.StringType}, result: cel.BoolType, check: windowCheck, call: during,
		about: "It is one of those days and between those times there. Days are `mon-fri`, `sat,sun` or `daily`; a window may go over midnight.",
	}, {
		name: "days", usage: `days(7)`, args: []*cel.Type{cel.IntType}, result: cel.DurationType, call: days,
		about: "A duration of so many times 24 hours.",
	},
}

// owners are who is meant by the name of an owner or a group.
func (c *call) owners(name string) []string {
	if members, ok := c.policy.Groups[name]; ok {
		return members
	}
	return []string{name}
}

// by lists the owners among those meant who made a statement of a kind, each once.
func by(statements []policy.Statement, kind string, meant []string) []string {
	var out []string
	for _, s := range statements {
		if s.Kind == kind && slices.Contains(meant, s.Owner) && !slices.Contains(out, s.Owner) {
			out = append(out, s.Owner)
		}
	}
	return out
}

func signedBy(c *call, args []any) ref.Val {
	who := args[0].(string)
	if got := by(c.facts.Release.Statements, "signature", c.owners(who)); len(got) > 0 {
		return c.found(true, "", "release %d is signed by %s", c.facts.Release.Number, strings.Join(got, ", "))
	}
	return c.found(false, "a signature by "+who+":  ashlar statement sign --kind signature --about "+c.facts.Release.Digest+" --key release.key",
		"no signature of release %d by %s is believed", c.facts.Release.Number, who)
}

func builtBy(c *call, args []any) ref.Val {
	who := args[0].(string)
	var missing []string
	for _, x := range c.facts.Release.Components {
		if len(by(x.Statements, "provenance", c.owners(who))) == 0 {
			missing = append(missing, x.Name)
		}
	}
	if len(missing) == 0 {
		return c.found(true, "", "every component was built by %s", who)
	}
	return c.found(false, "a build by "+who+" that signs its provenance", "no provenance by %s is believed of %s", who, strings.Join(missing, ", "))
}

func rebuiltBy(c *call, args []any) ref.Val {
	k, group := int(args[0].(int64)), args[1].(string)
	ok := true
	var words []string
	for _, x := range c.facts.Release.Components {
		got := by(x.Statements, "rebuild", c.owners(group))
		ok = ok && len(got) >= k
		words = append(words, fmt.Sprintf("%s by %d of %d", x.Name, len(got), k))
	}
	return c.found(ok, "more rebuilds by owners of "+group+":  ashlar rebuild "+fmt.Sprint(c.facts.Release.Number), "rebuilt: %s", strings.Join(words, ", "))
}

func soaked(c *call, args []any) ref.Val {
	env, need := args[0].(string), args[1].(time.Duration)
	var best time.Duration
	proven, seen := false, false
	for _, s := range c.facts.Release.Stays {
		if s.Env != env {
			continue
		}
		till := s.Till
		if till.IsZero() || till.After(c.facts.Now) {
			till = c.facts.Now
		}
		seen = true
		if d := till.Sub(s.Since); d > best && (s.Proven || !proven) || s.Proven && !proven {
			best, proven = d, s.Proven
		}
	}
	mend := fmt.Sprintf("%s more in %s", (need - best).Round(time.Second), env)
	switch {
	case !seen:
		return c.found(false, fmt.Sprintf("deploy it there and let it serve for %s", need), "release %d was never live in %s", c.facts.Release.Number, env)
	case !proven:
		return c.found(false, "let it bake in "+env, "release %d was live in %s for %s and has not proven itself there", c.facts.Release.Number, env, best.Round(time.Second))
	default:
		return c.found(best >= need, mend, "release %d was live in %s for %s of %s", c.facts.Release.Number, env, best.Round(time.Second), need)
	}
}

func approvedBy(c *call, args []any) ref.Val {
	m, group := int(args[0].(int64)), args[1].(string)
	var got, left []string
	for _, owner := range c.owners(group) {
		i := slices.IndexFunc(c.facts.Release.Approvals, func(a policy.Approval) bool { return a.Owner == owner && !a.BreakGlass })
		if i < 0 {
			left = append(left, owner)
			continue
		}
		got = append(got, fmt.Sprintf("%s (entry %d)", owner, c.facts.Release.Approvals[i].Index))
	}
	words := fmt.Sprintf("approved by %d of %d in %s", len(got), m, group)
	if len(got) > 0 {
		words += ": " + strings.Join(got, ", ")
	}
	return c.found(len(got) >= m, fmt.Sprintf("an approval by %s:  ashlar approve %d --env %s --key approver.key", strings.Join(left, " or "), c.facts.Release.Number, c.facts.Env), "%s", words)
}

// summarised is what the newest summary for a resource by those meant says; empty: there is
// none. Of two of the same second one that does not say that it passed counts.
func summarised(statements []policy.Statement, resource string, meant []string) policy.Statement {
	var newest policy.Statement
	for _, s := range statements {
		if s.Kind != "summary" || s.Says["resource"] != resource || !slices.Contains(meant, s.Owner) {
			continue
		}
		if c := strings.Compare(s.Says["time"], newest.Says["time"]); c > 0 || c == 0 && s.Says["result"] != policy.Passed {
			newest = s
		}
	}
	return newest
}

func verifiedBy(c *call, args []any) ref.Val {
	who, resource := args[0].(string), args[1].(string)
	passed := func(s policy.Statement) bool { return s.Says["result"] == policy.Passed }
	if s := summarised(c.facts.Release.Statements, resource, c.owners(who)); s.Kind != "" {
		return c.found(passed(s), "a verdict of "+resource+" that lets it in", "release %d is %s for %s by %s, on %s", c.facts.Release.Number, strings.ToLower(s.Says["result"]), resource, s.Owner, s.Says["time"])
	}
	if strings.HasPrefix(resource, policy.Resource(c.facts.App, "")) {
		return c.found(false, "deploy it to "+resource+", whose server has a deployer key", "no summary for %s by %s is believed of release %d", resource, who, c.facts.Release.Number)
	}
	var missing []string
	for _, x := range c.facts.Release.Components {
		if !passed(summarised(x.Statements, resource, c.owners(who))) {
			missing = append(missing, x.Name)
		}
	}
	if len(missing) == 0 && len(c.facts.Release.Components) > 0 {
		return c.found(true, "", "every component passed for %s by %s", resource, who)
	}
	return c.found(false, "deploy it to "+resource+", whose server has a deployer key", "no summary for %s by %s is believed of release %d, nor of %s", resource, who, c.facts.Release.Number, strings.Join(missing, ", "))
}

// severities, the worst last.
var severities = []string{"low", "medium", "high", "critical"}

func severity(args []any, _ *policy.Policy, _ Zones) string {
	if s, ok := args[0].(string); ok && !slices.Contains(severities, s) {
		return fmt.Sprintf("severity %q is not known; known: %s", s, strings.Join(severities, ", "))
	}
	return ""
}

func noFixable(c *call, args []any) ref.Val {
	least, age := slices.Index(severities, args[0].(string)), args[1].(time.Duration)
	v := c.facts.Release.Vulnerabilities
	switch {
	case least < 0:
		return types.NewErr("severity %q is not known", args[0])
	case v.Database == "":
		return types.NewErr("the server has no database of vulnerabilities: nothing can be said (ashlar policy database FILE)")
	case len(v.Unlisted) > 0:
		return types.NewErr("the packages of %s are not known: nothing can be said of them", strings.Join(v.Unlisted, ", "))
	}
	var bad []string
	fixes := map[string]bool{}
	unknown := 0
	for _, x := range v.Found {
		rank := slices.Index(severities, x.Severity)
		if x.Excused != "" || x.Fixed == "" || c.facts.Now.Sub(x.Published) <= age || rank >= 0 && rank < least {
			continue
		}
		text := fmt.Sprintf("%s in %s %s", x.ID, x.Package, x.Version)
		if rank < 0 { // it may be any
			unknown++
			text += " (severity unknown)"
		}
		bad = append(bad, text)
		fixes[fmt.Sprintf("%s %s", x.Package, x.Fixed)] = true
	}
	words := fmt.Sprintf("%d fixable of severity %s or worse, published more than %s before, by database %.19s of %s in %d packages", len(bad), args[0], age, v.Database, v.Date.UTC().Format(time.DateOnly), v.Packages)
	if unknown > 0 {
		words += fmt.Sprintf("; of %d of them the severity is unknown, so it counts as that", unknown)
	}
	if len(bad) > 0 {
		words += ": " + strings.Join(bad[:min(len(bad), 5)], ", ")
	}
	mended := slices.Sorted(maps.Keys(fixes))
	return c.found(len(bad) == 0, "a build with what they are mended in ("+strings.Join(mended[:min(len(mended), 5)], ", ")+"), or a VEX statement that says why they do not matter", "%s", words)
}

// weekdays are the names of days, Monday first.
var weekdays = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// daysOf reads "mon-fri", "sat,sun" or "daily".
func daysOf(text string) ([]string, bool) {
	if text == "daily" {
		return nil, true
	}
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		from, to, span := strings.Cut(part, "-")
		if !span {
			to = from
		}
		i, k := slices.Index(weekdays, from), slices.Index(weekdays, to)
		if i < 0 || k < i {
			return nil, false
		}
		out = append(out, weekdays[i:k+1]...)
	}
	return out, true
}

func windowCheck(args []any, _ *policy.Policy, zones Zones) string {
	for _, a := range args {
		if a == nil {
			return ""
		}
	}
	if _, _, err := within(args, time.Unix(0, 0), zones); err != nil {
		return err.Error()
	}
	return ""
}

// within says whether a time is in the window, and which window that is in words.
func within(args []any, now time.Time, zones Zones) (bool, string, error) {
	names, ok := daysOf(args[0].(string))
	if !ok {
		return false, "", fmt.Errorf("%q are no days", args[0])
	}
	w := gate.Window{Days: names, From: args[1].(string), To: args[2].(string), Zone: args[3].(string)}
	until, _, err := gate.Frozen([]gate.Window{w}, now, zones)
	return !until.IsZero(), w.String(), err
}

func during(c *call, args []any) ref.Val {
	in, words, err := within(args, c.facts.Now, c.zones)
	if err != nil {
		return types.NewErr("%v", err)
	}
	return c.found(in, "a time "+words, "it is %s; allowed is %s", c.facts.Now.UTC().Format("Mon 2006-01-02 15:04 MST"), words)
}

func days(_ *call, args []any) ref.Val {
	n := args[0].(int64)
	if n < 0 || n > 100_000 {
		return types.NewErr("%d days are too many", n)
	}
	return types.Duration{Duration: time.Duration(n) * 24 * time.Hour}
}
