package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
	"cel.dev/cel-go/parser"

	"github.com/ashlar-infra/ashlar/internal/policy"
)

// judge evaluates one rule and tells what it looked at.
func (r rule) judge(f *policy.Facts, p *policy.Policy, zones Zones) policy.Judged {
	out := policy.Judged{Name: r.Name, Why: r.Why, Outcome: policy.Fails}
	var notes []note
	vars, err := cel.FunctionVars(map[string]any{
		"app": f.App, "env": f.Env, "kind": f.Kind, "actor": f.Actor, "now": f.Now, "current": f.Current,
		"breakGlass": f.BreakGlass, "release": f.Release, "trust": f.Trust,
	}, bind(f, p, zones, &notes))
	var value ref.Val
	var details *cel.EvalDetails
	if err == nil {
		value, details, err = r.program.Eval(vars)
	}
	switch {
	case err != nil:
		out.Outcome, out.What = policy.Errs, err.Error()
	case value == types.True:
		out.Outcome = policy.Holds
	case value != types.False:
		out.Outcome, out.What = policy.Errs, fmt.Sprintf("it came to %v", value)
	}
	for _, n := range notes {
		out.Looked = append(out.Looked, n.Looked)
		if !n.OK && out.Outcome != policy.Holds && n.mend != "" && !slices.Contains(out.Mend, n.mend) {
			out.Mend = append(out.Mend, n.mend)
		}
	}
	r.explain(&out, details.State())
	return out
}

// bind gives the functions for one evaluation.
func bind(f *policy.Facts, p *policy.Policy, zones Zones, notes *[]note) map[string]cel.LateBoundFunction {
	bound := make(map[string]cel.LateBoundFunction, len(functions))
	for _, fn := range functions {
		bound[fn.name] = func(_ string, values ...ref.Val) ref.Val {
			args := make([]any, len(values))
			words := make([]string, len(values))
			for i, v := range values {
				args[i], words[i] = v.Value(), literal(v)
			}
			return fn.call(&call{facts: f, policy: p, zones: zones, notes: notes, text: fn.name + "(" + strings.Join(words, ", ") + ")"}, args)
		}
	}
	return bound
}

// literal is a value as it would be written.
func literal(v ref.Val) string {
	switch x := v.Value().(type) {
	case string:
		return fmt.Sprintf("%q", short(x))
	case time.Duration:
		return x.String()
	case time.Time:
		return x.UTC().Format(time.RFC3339)
	default:
		return short(fmt.Sprint(x))
	}
}

func short(text string) string {
	if r := []rune(text); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return text
}

// explain adds the parts of the rule that are no calls of functions of ours: each
// condition that and, or and not join.
func (r rule) explain(out *policy.Judged, state interpreter.EvalState) {
	for _, part := range conditions(nil, r.native.Expr()) {
		if part.Kind() == ast.CallKind && slices.Contains(functionNames(), part.AsCall().FunctionName()) {
			continue
		}
		text, err := parser.Unparse(part, r.native.SourceInfo())
		value, known := state.Value(part.ID())
		if err != nil || !known || len(out.Looked) >= maxNotes {
			continue
		}
		came := text + " is " + literal(value)
		if values := r.values(part, state); len(values) > 0 {
			came += ": " + strings.Join(values, ", ")
		}
		ok := value == types.True
		out.Looked = append(out.Looked, policy.Looked{What: text, Came: came, OK: ok})
		if !ok && out.Outcome != policy.Holds {
			out.Mend = append(out.Mend, text)
		}
	}
}

// conditions are what an expression joins by and, or, not and ?:.
func conditions(list []ast.Expr, e ast.Expr) []ast.Expr {
	if e.Kind() == ast.CallKind {
		switch c := e.AsCall(); c.FunctionName() {
		case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.Conditional:
			for _, arg := range c.Args() {
				list = conditions(list, arg)
			}
			return list
		}
	}
	return append(list, e)
}

// values are the facts that a condition reads by name, and what they are.
func (r rule) values(e ast.Expr, state interpreter.EvalState) []string {
	var out []string
	var walk func(ast.Expr)
	walk = func(e ast.Expr) {
		switch e.Kind() {
		case ast.CallKind:
			if e.AsCall().IsMemberFunction() {
				walk(e.AsCall().Target())
			}
			for _, a := range e.AsCall().Args() {
				walk(a)
			}
		case ast.SelectKind, ast.IdentKind:
			value, known := state.Value(e.ID())
			text, err := parser.Unparse(e, r.native.SourceInfo())
			if err != nil || !known || len(out) >= 8 {
				return
			}
			switch value.Type() {
			case types.StringType, types.IntType, types.BoolType, types.TimestampType, types.DurationType:
				if said := text + " = " + literal(value); !slices.Contains(out, said) {
					out = append(out, said)
				}
			}
		}
	}
	walk(e)
	return out
}
