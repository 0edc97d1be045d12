package judge

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/policy"
)

// Bounds of one evaluation. The cost is in units of the CEL library: about one for each
// step; a rule set of a few functions costs some dozens.
const (
	maxCost     = 1_000_000
	maxElements = 1_000_000 // of the lists and texts that an evaluation holds at a time
	maxNesting  = 50
	maxNodes    = 5_000
	maxRegexp   = 1_000
)

// measure has what an evaluation holds counted to the end: facts nest deeper, and have more
// in them, than the library looks by itself, which takes what it cannot count for too much.
var measure = types.MemoryTrackerSizeCalculator(types.NewSizeCalculator(types.SizeCalculatorMaxDepth(maxNesting), types.SizeCalculatorMaxTraversal(maxElements)))

// compiled is a policy whose rules are ready to be evaluated.
type compiled struct {
	policy *policy.Policy
	rules  []rule
}

type rule struct {
	policy.Rule
	program cel.Program
	native  *ast.AST
}

// environment declares what expressions may name.
func environment() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.Types(cel.NativeTypeFor[policy.Facts](types.ParseStructTag("json"))),
		cel.Variable("app", cel.StringType),
		cel.Variable("env", cel.StringType),
		cel.Variable("kind", cel.StringType),
		cel.Variable("actor", cel.StringType),
		cel.Variable("now", cel.TimestampType),
		cel.Variable("current", cel.IntType),
		cel.Variable("breakGlass", cel.StringType),
		cel.Variable("release", cel.ObjectType("policy.Release")),
		cel.Variable("trust", cel.ObjectType("policy.Trust")),
		cel.EnableMacroCallTracking(),
		cel.ParserRecursionLimit(maxNesting),
		cel.ParserExpressionSizeLimit(policy.MaxExpr),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
	}
	for _, f := range functions {
		opts = append(opts, f.declare())
	}
	return cel.NewEnv(opts...)
}

// compile gives a policy ready to be asked. Its error is a fault.List.
func (j *Judge) compile(name string, document []byte) (*compiled, error) {
	if c := j.compiled[digest.FromBytes(document)]; c != nil {
		return c, nil
	}
	p, err := policy.Parse(name, document)
	if err != nil {
		return nil, err
	}
	c := &compiled{policy: p}
	for _, r := range p.Rules {
		if ready, ok := j.rule(p, r); ok {
			c.rules = append(c.rules, ready)
		}
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	if len(j.compiled) >= kept {
		clear(j.compiled)
	}
	j.compiled[p.Digest] = c
	return c, nil
}

func (j *Judge) rule(p *policy.Policy, r policy.Rule) (rule, bool) {
	tree, issues := j.env.Compile(r.Allow)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			what, _, _ := strings.Cut(e.Message, "\n")
			what = strings.TrimSuffix(what, " (in container '')")
			p.Add(r, e.Location.Line(), begin(r.Allow, e.Location), hint(what), "rule %s: %s", r.Name, what)
		}
		return rule{}, false
	}
	if tree.OutputType() != cel.BoolType {
		p.Add(r, 0, 0, "compare it with something", "rule %s gives %s; a rule is true or false", r.Name, tree.OutputType())
		return rule{}, false
	}
	ready := rule{Rule: r, native: tree.NativeRep()}
	sound := ready.checkCalls(p, j.zones)
	program, err := j.env.Program(tree, cel.EvalOptions(cel.OptExhaustiveEval), cel.CostLimit(maxCost), cel.MemoryLimit(maxElements), cel.MemoryTracking(measure))
	if err != nil {
		p.Add(r, 0, 0, "write it otherwise", "rule %s: %v", r.Name, err)
		return rule{}, false
	}
	ready.program = program
	return ready, sound
}

// begin is the column, from 1, where what stands at a place begins: the library says
// of a call where its bracket is.
func begin(expr string, at common.Location) int {
	lines := strings.Split(expr, "\n")
	column := at.Column()
	if at.Line() < 1 || at.Line() > len(lines) {
		return column + 1
	}
	line := []rune(lines[at.Line()-1])
	if column < 0 || column >= len(line) || line[column] != '(' {
		return column + 1
	}
	for column > 0 && (line[column-1] == '_' || unicode.IsLetter(line[column-1]) || unicode.IsDigit(line[column-1])) {
		column--
	}
	return column + 1
}

// hint is what to do about a message of the CEL library.
func hint(what string) string {
	if name, ok := strings.CutPrefix(what, "undeclared reference to '"); ok {
		name, _, _ = strings.Cut(name, "'")
		for _, f := range functions {
			if strings.EqualFold(f.name, name) {
				return "write  " + f.name
			}
		}
		return "known: app, env, kind, actor, now, current, release, trust, breakGlass; " + strings.Join(functionNames(), ", ")
	}
	if strings.HasPrefix(what, "undefined field") {
		return "see the facts:  ashlar policy facts ENV"
	}
	if strings.HasPrefix(what, "found no matching overload for '") {
		name, _, _ := strings.Cut(strings.TrimPrefix(what, "found no matching overload for '"), "'")
		for _, f := range functions {
			if f.name == name {
				return "write it like  " + f.usage
			}
		}
	}
	return "see the expressions of docs/policy.md"
}

// checkCalls checks arguments that are written out, which would otherwise be found
// wrong when it is too late.
func (r rule) checkCalls(p *policy.Policy, zones Zones) bool {
	sound := true
	ast.PostOrderVisit(r.native.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		i := slices.IndexFunc(functions, func(f function) bool { return f.name == e.AsCall().FunctionName() })
		if i < 0 || functions[i].check == nil {
			return
		}
		var args []any
		for _, a := range e.AsCall().Args() {
			if a.Kind() != ast.LiteralKind {
				args = append(args, nil)
				continue
			}
			args = append(args, a.AsLiteral().Value())
		}
		if bad := functions[i].check(args, p, zones); bad != "" {
			at := r.native.SourceInfo().GetStartLocation(e.ID())
			p.Add(r.Rule, at.Line(), begin(r.Allow, at), "write it like  "+functions[i].usage, "rule %s: %s", r.Name, bad)
			sound = false
		}
	}))
	return sound
}

func groupOf(v any, p *policy.Policy) string {
	name, ok := v.(string)
	if !ok || p.Groups[name] != nil {
		return ""
	}
	if len(p.Groups) == 0 {
		return fmt.Sprintf("there is no group %q: the policy has none", name)
	}
	var known []string
	for g := range p.Groups {
		known = append(known, g)
	}
	slices.Sort(known)
	return fmt.Sprintf("there is no group %q; known: %s", name, strings.Join(known, ", "))
}

// quorum checks m of a group.
func quorum(args []any, p *policy.Policy, _ Zones) string {
	if bad := groupOf(args[1], p); bad != "" {
		return bad
	}
	group, _ := args[1].(string)
	if m, ok := args[0].(int64); ok && (m < 1 || group != "" && m > int64(len(p.Groups[group]))) {
		return fmt.Sprintf("%d of the group %s cannot be: it has %d", m, group, len(p.Groups[group]))
	}
	return ""
}
