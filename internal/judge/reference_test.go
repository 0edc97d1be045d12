package judge

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the reference in docs/policy.md anew")

// The marks between which docs/policy.md is made from the types and functions.
const (
	begins = "<!-- begin: made from internal/policy/facts.go and internal/judge/functions.go by  go test ./internal/judge -update -->\n"
	ends   = "<!-- end -->\n"
)

// TestReference: docs/policy.md says what the types and functions are.
func TestReference(t *testing.T) {
	const path = "../../docs/policy.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begins)
	_, after, ok2 := strings.Cut(rest, ends)
	if !ok || !ok2 {
		t.Fatalf("%s lacks its marks", path)
	}
	want := before + begins + reference(t) + ends + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("docs/policy.md is old (-want +got); go test ./internal/judge -update\n%s", diff)
	}
}

func reference(t *testing.T) string {
	file, err := parser.ParseFile(token.NewFileSet(), "../policy/facts.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			if st, ok := s.(*ast.TypeSpec).Type.(*ast.StructType); ok {
				table(&b, s.(*ast.TypeSpec).Name.Name, g.Doc.Text(), st)
			}
		}
	}
	b.WriteString("### Functions\n\n| function | true when |\n|---|---|\n")
	for _, f := range functions {
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.usage, f.about)
	}
	b.WriteString("\n")
	return b.String()
}

func table(b *strings.Builder, name, doc string, st *ast.StructType) {
	title := "`" + strings.ToLower(name[:1]) + name[1:] + "`"
	if name == "Facts" {
		title = "Variables"
	}
	fmt.Fprintf(b, "### %s\n\n%s\n\n| name | type | what |\n|---|---|---|\n", title, strings.ReplaceAll(strings.TrimSpace(doc), "\n", " "))
	for _, f := range st.Fields.List {
		tag, _ := strconv.Unquote(f.Tag.Value)
		field, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", field, kind(f.Type), strings.TrimSpace(f.Comment.Text()))
	}
	b.WriteString("\n")
}

// kind is a type as CEL calls it.
func kind(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.ArrayType:
		return "list of " + kind(e.Elt)
	case *ast.MapType:
		return "map of " + kind(e.Key) + " to " + kind(e.Value)
	case *ast.SelectorExpr:
		return "timestamp"
	case *ast.Ident:
		if ast.IsExported(e.Name) {
			name := strings.ToLower(e.Name[:1]) + e.Name[1:]
			return "[" + name + "](#" + strings.ToLower(name) + ")"
		}
		return e.Name
	}
	return "?"
}
