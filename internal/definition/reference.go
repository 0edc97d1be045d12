package definition

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed example.yaml
var exampleText string

// Example gives a definition that uses most of what there is.
func Example() []byte { return []byte(exampleText) }

// Reference renders the schema as a Markdown page: one section for each kind of map,
// in the order in which they are met.
func Reference() []byte {
	p := &page{s: loadSchemas(), anchors: map[string]bool{}}
	p.b.WriteString("# ashlar.yaml\n\n<!-- Made from internal/definition/schema.json by the tests of that package with -update. -->\n\n")
	p.b.WriteString(p.s.root.Description + "\n\n")
	p.b.WriteString("The file is YAML without anchors, aliases, tags and templating. Unknown keys are errors. `ashlar schema` prints the\nJSON Schema from which this page is made; editors that speak it complete and check while you type.\n\n")
	p.b.WriteString("A commented example is what `ashlar init` writes. **Required** keys are marked; the others have the default that is\ngiven, or none. One [example](#an-example) shows most of them together.\n\n")
	p.section("ashlar.yaml", p.s.root)
	for len(p.todo) > 0 {
		next := p.todo[0]
		p.todo = p.todo[1:]
		p.section(next.name, next.rule)
	}
	p.scalars()
	p.b.WriteString("\n## An example\n\nMost of what there is, in one file.\n\n```yaml\n" + exampleText + "```\n")
	return []byte(p.b.String())
}

// page is the reference while it is written.
type page struct {
	s       schemas
	b       strings.Builder
	anchors map[string]bool // sections that are written or planned
	todo    properties
}

// section writes the keys of one kind of map.
func (p *page) section(name string, r *rule) {
	if name != "ashlar.yaml" {
		fmt.Fprintf(&p.b, "## %s\n\n%s\n\n", heading(name), r.Description)
	} else {
		p.b.WriteString("## The file\n\n")
	}
	p.b.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, one := range r.Properties {
		v := p.s.resolve(one.rule)
		fmt.Fprintf(&p.b, "| `%s` | %s | %s | %s |\n", one.name, cell(p.value(one.rule, v)), cell(initial(one.name, r, v)), cell(meaning(v)))
	}
	p.b.WriteString("\n")
}

// value says what a key holds, linking to the section about it.
func (p *page) value(written, r *rule) string {
	switch {
	case len(r.Properties) > 0:
		return link(r.Title, p.plan(written.Ref))
	case r.Others != nil && r.Others.Ref != "" && len(p.s.resolve(r.Others).Properties) > 0:
		return link(r.Title, p.plan(r.Others.Ref))
	case r.Items != nil && r.Items.Ref != "" && len(p.s.resolve(r.Items).Properties) > 0:
		return link(r.Title, p.plan(r.Items.Ref))
	case r.form != "" && written.Ref != "" && r.Pattern != "":
		return link(r.Title, "values")
	}
	return r.Title
}

// plan notes that a definition gets a section and gives its anchor.
func (p *page) plan(ref string) string {
	name := strings.TrimPrefix(ref, "#/$defs/")
	if !p.anchors[name] {
		p.anchors[name] = true
		p.todo = append(p.todo, property{name, p.s.root.Defs.get(name)})
	}
	return strings.ReplaceAll(strings.ToLower(heading(name)), " ", "-")
}

// headings name the sections whose definition is called otherwise.
var headings = map[string]string{"filesSource": "files source", "go": "go source", "debian": "debian source", "imageSource": "image source", "dockerfile": "dockerfile source", "configFile": "config file", "tmpfs": "tmpfs place", "dataSchema": "data schema", "blueGreen": "blue-green"}

func heading(name string) string {
	if h := headings[name]; h != "" {
		return h
	}
	return name
}

// scalars writes how the values are written that many keys share.
func (p *page) scalars() {
	p.b.WriteString("## Values\n\n| value | how it is written | examples |\n|---|---|---|\n")
	for _, one := range p.s.root.Defs {
		r := one.rule
		if len(r.Properties) > 0 || r.wants("object") || r.Pattern == "" || one.name == "optionalText" || one.name == "mountpoint" {
			continue
		}
		var examples []string
		for _, e := range r.Examples {
			examples = append(examples, "`"+flow(e)+"`")
		}
		fmt.Fprintf(&p.b, "| %s | %s | %s |\n", cell(r.Title), cell(r.Description), cell(strings.Join(examples, ", ")))
	}
}

func initial(name string, parent, r *rule) string {
	for _, required := range parent.Required {
		if required == name {
			return "**required**"
		}
	}
	if r.Default == nil {
		return ""
	}
	var v any
	if err := json.Unmarshal(r.Default, &v); err != nil {
		return ""
	}
	return "`" + flow(v) + "`"
}

// meaning is the description with the known values and an example.
func meaning(r *rule) string {
	text := r.Description
	if known := r.known(); len(known) > 1 {
		text += " One of `" + strings.Join(known, "`, `") + "`."
	}
	if r.Minimum != nil && r.Maximum != nil && !r.wants("string") {
		text += fmt.Sprintf(" From %.0f to %.0f.", *r.Minimum, *r.Maximum)
	}
	if d := string(r.Default); len(r.Examples) > 0 && len(r.Enum) == 0 && (d == "" || d == "{}" || d == "[]") {
		text += " Example: `" + flow(r.Examples[0]) + "`"
	}
	return text
}

func link(text, anchor string) string { return "[" + text + "](#" + anchor + ")" }

// cell makes text fit into a table.
func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", `\|`), "\n", " ")
}
