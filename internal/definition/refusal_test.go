package definition

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// oracle is the published schema in a complete implementation of JSON Schema.
func oracle(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaText))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	return c.MustCompile("schema.json")
}

// places gives where and by which keyword a complete implementation refuses.
func places(v *jsonschema.ValidationError, into map[string]bool) {
	keyword := v.ErrorKind.KeywordPath()
	if len(keyword) > 0 && keyword[0] == string(byNames) {
		return // its place shares memory with later ones, so it cannot be trusted
	}
	for _, cause := range v.Causes {
		places(cause, into)
	}
	if len(v.Causes) > 0 {
		return
	}
	word := string(byNot) // which has no path
	if len(keyword) > 0 {
		word = keyword[0]
	}
	if word == "exclusiveMinimum" || word == "maximum" {
		word = string(byRange)
	}
	into[word+" at /"+strings.Join(v.InstanceLocation, "/")] = true
}

// agree compares what is refused of a text that can be read as YAML.
func agree(t *testing.T, complete *jsonschema.Schema, src []byte) {
	t.Helper()
	text, f := readable("ashlar.yaml", src)
	if len(f.found) > 0 {
		return
	}
	root := parse(text, f)
	if root == nil {
		return
	}
	got, names := map[string]bool{}, false
	for _, one := range loadSchemas().refusals(root) {
		if one.by == byNames {
			names = true
			continue
		}
		got[string(one.by)+" at /"+strings.Join(one.path, "/")] = true
	}
	want := map[string]bool{}
	err := complete.Validate(root.json())
	var refused *jsonschema.ValidationError
	if errors.As(err, &refused) {
		places(refused, want)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("a complete implementation refuses other things (-want +got):\n%s\nof %q", diff, src)
	}
	if (err == nil) != (len(got) == 0 && !names) {
		t.Errorf("a complete implementation says %v of %q", err, src)
	}
}

// FuzzSchema holds the comparison of a definition with the schema against a
// complete implementation of JSON Schema.
func FuzzSchema(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, value := range []string{"x", "0", "1", "1.0", "1.5", "-3", "1e40", "0x1f", "18446744073709551615", "true", "null", `"a\0b"`, "[]", "[a, a]", "[1, 1.0]", "{}", "{a: b}", "{'': x}"} {
		for _, key := range []string{"command", "user", "port", "env", "files", "health", "resources", "stop", "tmpfs", "capabilities", "replicas", "unheard"} {
			f.Add([]byte("app: a\ncomponents: {web: {build: [{go: {package: ./x}}], run: {" + key + ": " + value + "}, route: " + value + "}}\nenvironments: {p: " + value + "}\n"))
		}
		f.Add([]byte("app: " + value + "\ncomponents: {web: {build: " + value + ", run: {health: {tcp: " + value + "}, resources: {cpu: " + value + ", pids: " + value + "}}}, 9: " + value + "}\n"))
		f.Add([]byte("components: {web: {build: [{files: {from: " + value + ", to: /a, owner: " + value + "}}, " + value + "]}}\n"))
	}
	complete := oracle(f)
	f.Fuzz(func(t *testing.T, src []byte) { agree(t, complete, src) })
}

// TestReferencesStandAlone holds what resolving a reference takes for granted:
// beside it are remarks only, nothing that is to be checked.
func TestReferencesStandAlone(t *testing.T) {
	var walk func(where string, r *rule)
	walk = func(where string, r *rule) {
		if r == nil {
			return
		}
		remarks := rule{Ref: r.Ref, Title: r.Title, Description: r.Description, Default: r.Default, Examples: r.Examples}
		if diff := cmp.Diff(remarks, *r, cmp.AllowUnexported(rule{}, property{})); r.Ref != "" && diff != "" {
			t.Errorf("%s has more than remarks beside its reference:\n%s", where, diff)
		}
		for _, p := range slices.Concat(r.Properties, r.Defs) {
			walk(where+"/"+p.name, p.rule)
		}
		for _, below := range []*rule{r.Names, r.Others, r.Items, r.Not} {
			walk(where+"/*", below)
		}
	}
	walk("", loadSchemas().root)
}

// TestExamples holds that what the schema, and so the reference page and many a mend,
// gives as an example or a default is what the schema takes.
func TestExamples(t *testing.T) {
	s, seen := loadSchemas(), 0
	var walk func(where string, written *rule)
	walk = func(where string, written *rule) {
		if written == nil {
			return
		}
		r := s.resolve(written)
		values := slices.Clone(r.Examples)
		if r.Default != nil {
			var v any
			if err := json.Unmarshal(r.Default, &v); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			values = append(values, v)
		}
		for _, v := range values {
			seen++
			c := &comparer{s: s}
			c.check(fromJSON(v, nodeLabel{key: where}, span{}), r)
			for _, refused := range c.found {
				t.Errorf("%s: the example %s is refused by %s at %q", where, flow(v), refused.by, refused.path)
			}
		}
		for _, p := range slices.Concat(written.Properties, written.Defs) {
			walk(where+"/"+p.name, p.rule)
		}
		for _, below := range []*rule{written.Names, written.Others, written.Items} {
			walk(where+"/*", below)
		}
	}
	walk("", s.root)
	if seen < 100 {
		t.Errorf("only %d examples were seen", seen)
	}
}
