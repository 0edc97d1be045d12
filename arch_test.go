// Package ashlar_test holds the map of the repository and the rules that keep it:
// who may import whom, and what the pure core may not touch. It reads the source,
// with its tests, instead of asking `go list`, whose answer `go test` would cache.
package ashlar_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/modfile"
)

const module = "github.com/ashlar-infra/ashlar/"

// tier is how far in a package is. Imports point inward or sideways, never outward.
type tier int

const (
	core    tier = iota // decides: a function of its arguments
	engines             // asks the core, commits and acts through interfaces that it owns
	adapter             // the outside behind those interfaces: disk, kernel, network, archives
	edge                // what people and programs meet
	program             // wires everything together; tools that measure or show
)

var tierNames = map[tier]string{core: "the pure core", engines: "the engine", adapter: "an adapter", edge: "an edge", program: "a program"}

// pkg is one package: what it may import of this module (directories, "internal/"
// left out), what its tests may besides, and why it is so.
type pkg struct {
	tier    tier
	imports string
	tests   string
	why     string
}

// packages is the map. A package that is not here, an import that is not here and
// an entry that nothing needs fail the test.
var packages = map[string]pkg{
	"internal/fault":      {core, "", "", "everybody reports faults, so it knows nobody"},
	"internal/definition": {core, "fault gate release", "", "reading ashlar.yaml needs the text alone; what a build adds nothing to has the release's types"},
	"internal/image":      {core, "fault", "", "an image is a value"},
	"internal/release":    {core, "fault gate", "", "a release is a document, and which schedules can be is for those to say who read them"},
	"internal/rollout":    {core, "fault gate", "", "deciding needs a reduced view of a release, which it declares itself"},
	"internal/ledger":     {core, "fault image", "", "where bytes come from is a document; what it is read from is passed in"},
	"internal/minimal":    {core, "fault image", "", "what remains is a function of a tree and of what its executables say"},
	"internal/gate":       {core, "fault", "", "judging needs counts, values and times; whose they are is the caller's matter"},
	"internal/policy":     {core, "definition fault", "", "facts, rules and verdicts are values; evaluating the rules takes a library that everybody's start would pay for"},
	"internal/osv":        {core, "fault", "", "what a database says of a version is a function of both"},
	"internal/judge":      {core, "fault gate policy", "", "the only package with CEL: a verdict is a function of a policy and facts"},
	"internal/trust":      {core, "record", "", "judging needs documents, keys and the time as values"},
	"internal/proof":      {core, "image ledger policy release record trust", "judge seal", "verifying needs the file, a trust root and the time as values; sealing is passed in"},
	"internal/record":     {core, "fault", "", "the log is hashing; the store keeps the hashes"},

	"internal/engine": {engines, "fault gate release rollout record", "sim", "it owns the interfaces to the outside, so it must not know who is behind them"},
	"internal/sim":    {engines, "fault release rollout record engine", "conformance", "a world made up around the real engine, used by tests and `ashlar simulate`"},
	"internal/conformance": {engines, "fault release rollout record engine", "",
		"the contracts of the engine's interfaces as tests: it names the interfaces and no implementation"},

	"internal/durable":   {adapter, "", "", "replacing a file is the same for everybody, whatever is in it"},
	"internal/object":    {adapter, "fault image", "", "the content store; it is an image.Opener"},
	"internal/seal":      {adapter, "fault image release object", "", "sealed trees are metadata over the content store's objects"},
	"internal/inflate":   {adapter, "", "", "bounded decompression knows no archive and no package"},
	"internal/debian":    {adapter, "fault image inflate ledger object", "", "what is fetched is kept in the content store"},
	"internal/oci":       {adapter, "fault image inflate object", "", "images of others become trees over the content store, by their own claims alone"},
	"internal/build":     {adapter, "durable fault definition image ledger minimal release object seal debian oci", "", "a build reads a definition and puts artifacts and seals into the content store"},
	"internal/reproduce": {adapter, "fault image object seal", "", "it runs the program again and compares objects; what a build is it need not know"},
	"internal/shim":      {adapter, "durable fault seal", "", "the process that holds one instance; it mounts the instance's seal"},
	"internal/local":     {adapter, "fault release rollout seal shim", "engine conformance image object", "it is an engine.Platform, which Go sees without an import; its tests assert it"},
	"internal/router":    {adapter, "durable fault rollout", "load conformance", "it is an engine.Router, which Go sees without an import"},
	"internal/nft":       {adapter, "durable fault rollout", "engine conformance", "it is an engine.Router for TCP services, which Go sees without an import"},
	"internal/store": {adapter, "durable fault rollout record engine", "conformance",
		"it is an engine.Store, whose methods carry engine.Stored; were that type in the core, the import would go"},
	"internal/prometheus": {adapter, "fault", "", "one number of a server's; what it means is judged elsewhere"},
	"internal/event":      {adapter, "fault release rollout record", "store", "brings what the record says to webhooks; the store behind it is an interface of its own"},
	"internal/secret":     {adapter, "durable fault release rollout", "", "values of secrets, encrypted; what a release names of them is all that others see"},
	"internal/gc":         {adapter, "image release rollout", "object seal", "what may be deleted follows from documents; what deletes is passed in"},
	"internal/load":       {adapter, "", "", "sends requests and counts; knows http alone, so that it can judge anything"},
	"internal/keyfile":    {adapter, "durable fault trust", "", "private keys, wherever they are kept; what they sign is a value of trust"},
	"internal/referrer":   {adapter, "fault image object trust", "", "statements in the content store, beside what they are about"},
	"internal/rebuild":    {adapter, "fault", "", "a tar of inputs, written and read; the build is the ordinary one"},
	"internal/trustroot":  {adapter, "durable fault trust", "", "the trust root of a state directory: a file, and the memory of what it was"},
	"internal/admission":  {adapter, "fault ledger osv policy record release rollout trust", "", "facts come from functions that are passed in, and the judge is another process"},
	"internal/summary":    {adapter, "fault policy record rollout trust", "", "the record is what it reads, and everything that it does is passed in"},
	"internal/notary":     {adapter, "durable fault record", "store", "it reads the record through an interface that the store fulfils, and knows witnesses as another"},
	"internal/witness":    {adapter, "durable fault record", "", "somebody else's program: it sees checkpoints and proofs, never entries"},

	"internal/registry": {adapter, "durable fault image object referrer", "trust", "serves the content store to others; what was built there a catalog tells, which cmd/ashlar makes of the releases"},

	"internal/api": {edge, "fault release rollout record trust engine policy", "store notary trustroot", "one line each over the engine, and the client"},
	"internal/cli": {edge, "fault definition image ledger release rollout record trust proof api sim policy", "",
		"commands talk to the server through api, and get builders, seals and servers from cmd/ashlar"},

	"cmd/ashlar":         {program, "debian fault image ledger release rollout record proof engine object rebuild referrer seal build oci reproduce local nft prometheus router store secret notary keyfile trustroot witness gc event registry api cli admission osv policy summary trust", "definition", "the only place that knows which adapter stands behind which interface"},
	"cmd/ashlar-shim":    {program, "shim", "", "one instance's process must stay small: nothing else is linked into it"},
	"cmd/ashlar-judge":   {program, "judge policy", "", "a process that can be killed, whatever an expression does"},
	"cmd/ashlar-witness": {program, "fault witness", "", "runs on other people's machines: nothing of the server is linked into it"},
	"bench":              {program, "image object seal rollout record router store load", "", "measures the programs from outside, and sealing and the record from within"},
	"examples/demo":      {program, "load", "", "shows the programs from outside"},
	"test":               {program, "", "fault release rollout record api load", "drives the programs from outside, as users do"},
	"tools/conformance":  {program, "", "", "a module of its own, in which the suite of the OCI distribution specification judges our registry"},
	"tools/cosign":       {program, "", "", "a module of its own, in which the official cosign judges what we sign"},
	"test/oracle":        {program, "", "", "a second implementation judges the first from outside"},
	"test/docs":          {program, "", "", "runs what the documents say"},
	".":                  {program, "", "", "this test"},

	"examples/hello/cmd/hello":   {program, "", "", "somebody else's program: it knows nothing of Ashlar"},
	"examples/guestbook/cmd/web": {program, "", "", "likewise"},
}

// impure is what the core may not import, by path or path/: it would read or change
// something other than its arguments.
var impure = []string{
	"os", "net", "log", "syscall", "math/rand", "crypto/rand", "runtime", "context", "database", "plugin", "unsafe",
	"golang.org/x/sys", "golang.org/x/net", "golang.org/x/sync",
}

// clock are the names of package time that read the clock or wait.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// exempt are single exceptions to impure, each with the check that bounds it.
var exempt = map[string]string{
	"internal/fault net/http": "Status", // constants for the table of codes: every name used begins so
}

func TestArchitecture(t *testing.T) {
	for _, problem := range check(os.DirFS("."), packages) {
		t.Error(problem)
	}
}

// TestArchitectureIsChecked plants one violation at a time.
func TestArchitectureIsChecked(t *testing.T) {
	table := map[string]pkg{
		"internal/fault": {core, "", "", "c"}, "internal/rollout": {core, "fault", "", "c"},
		"internal/engine": {engines, "rollout", "", "e"}, "internal/local": {adapter, "rollout", "engine", "a"},
		"cmd/ashlar": {program, "local engine", "", "p"},
	}
	good := map[string]string{
		"internal/fault/fault.go":        "package fault\nimport \"net/http\"\nconst X = http.StatusOK",
		"internal/rollout/decide.go":     "package rollout\nimport (\n\"time\"\n_ \"" + module + "internal/fault\"\n)\nvar _ = time.Second",
		"internal/engine/engine.go":      "package engine\nimport _ \"" + module + "internal/rollout\"",
		"internal/local/local.go":        "package local\nimport _ \"" + module + "internal/rollout\"",
		"internal/local/run_test.go":     "package local\nimport _ \"" + module + "internal/engine\"",
		"cmd/ashlar/main.go":             "package main\nimport (\n\"os\"\n_ \"" + module + "internal/local\"\n_ \"" + module + "internal/engine\"\n)\nfunc main() { os.Exit(0) }",
		"internal/local/testdata/x/x.go": "package x // not part of the program",
	}
	if got := check(tree(good), table); len(got) > 0 {
		t.Fatalf("a good tree: %q", got)
	}
	outward := maps.Clone(table)
	outward["internal/rollout"] = pkg{core, "fault local", "", "c"}
	good["internal/rollout/x.go"] = "package rollout\nimport _ \"" + module + "internal/local\""
	if got := check(tree(good), outward); len(got) != 1 || !strings.Contains(got[0], "point inward") {
		t.Errorf("a map that points outward: %q", got)
	}
	delete(good, "internal/rollout/x.go")
	for name, c := range map[string]struct{ file, text, want string }{
		"an unlisted package":      {"internal/util/util.go", "package util", "internal/util is not on the map"},
		"an import outward":        {"internal/rollout/x.go", "package rollout\nimport _ \"" + module + "internal/engine\"", "may not import internal/engine"},
		"an adapter on the engine": {"internal/local/x.go", "package local\nimport _ \"" + module + "internal/engine\"", "may not import internal/engine"},
		"an entry nobody needs":    {"internal/engine/engine.go", "package engine", "does not import internal/rollout"},
		"the clock":                {"internal/rollout/x.go", "package rollout\nimport t \"time\"\nvar X = t.Now()", "time.Now"},
		"a dot import":             {"internal/rollout/x.go", "package rollout\nimport . \"time\"\nvar X = Now()", "nameless"},
		"the disk":                 {"internal/rollout/x.go", "package rollout\nimport _ \"os/exec\"", "imports os/exec"},
		"chance":                   {"internal/rollout/x.go", "package rollout\nimport _ \"math/rand/v2\"", "imports math/rand/v2"},
		"http beyond its codes":    {"internal/fault/x.go", "package fault\nimport \"net/http\"\nvar X = http.Get", "http.Get"},
		"a goroutine":              {"internal/rollout/x.go", "package rollout\nfunc f() { go f() }", "starts a goroutine"},
		"Kubernetes":               {"internal/local/x.go", "package local\nimport _ \"k8s.io/client-go/rest\"", "k8s.io/client-go/rest"},
		"CEL":                      {"internal/rollout/x.go", "package rollout\nimport _ \"cel.dev/cel-go/cel\"", "CEL is known to internal/judge alone"},
		"an exit":                  {"cmd/ashlar/server.go", "package main\nimport \"os\"\nfunc f() { os.Exit(1) }", "os.Exit"},
		"no syntax":                {"cmd/ashlar/server.go", "package", "server.go"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := tree(good)
			bad[c.file] = &fstest.MapFile{Data: []byte(c.text)}
			if got := check(bad, table); len(got) != 1 || !strings.Contains(got[0], c.want) {
				t.Errorf("got %q, want one that says %q", got, c.want)
			}
		})
	}
}

func tree(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

// TestDepsAgree: deps.txt and deps-judge.txt, which `make lint` compares with what is really linked,
// name the versions of go.mod, so that none changes alone.
func TestDepsAgree(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	required := map[string]bool{}
	for _, r := range mod.Require {
		required[r.Mod.Path+" "+r.Mod.Version] = true
	}
	for _, name := range []string{"deps.txt", "deps-judge.txt"} {
		agree(t, name, required)
	}
}

func agree(t *testing.T, name string, required map[string]bool) {
	list, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var deps []string
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		deps = append(deps, line)
		if !required[line] {
			t.Errorf("%s has %q, go.mod has not; its first lines tell how to make it anew", name, line)
		}
	}
	if !slices.IsSorted(deps) || len(deps) == 0 {
		t.Errorf("%s has %d lines, sorted: %v", name, len(deps), slices.IsSorted(deps))
	}
}

// checker gathers what is wrong with a tree.
type checker struct {
	packages map[string]pkg
	used     map[string]bool // "importer imported", of what the map allows
	problems []string
}

func check(tree fs.FS, packages map[string]pkg) []string {
	c := &checker{packages: packages, used: map[string]bool{}}
	found := map[string]bool{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || name == "bin"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		found[path.Dir(name)] = true
		c.file(name, text)
		return nil
	})
	if err != nil {
		c.report("%v", err)
	}
	for dir := range found {
		if _, ok := packages[dir]; !ok {
			c.report("%s is not on the map: add it to packages in arch_test.go, and say why it is there", dir)
		}
	}
	for dir, p := range packages {
		if !found[dir] {
			c.report("%s is on the map and has no Go files: take it out of packages in arch_test.go", dir)
			continue
		}
		for _, name := range strings.Fields(p.imports) {
			if other := packages["internal/"+name]; other.tier > p.tier {
				c.report("%s is %s and the map lets it import internal/%s, which is %s: imports point inward", dir, tierNames[p.tier], name, tierNames[other.tier])
			}
		}
		for _, name := range slices.Concat(strings.Fields(p.imports), strings.Fields(p.tests)) {
			if !c.used[dir+" internal/"+name] {
				c.report("%s does not import internal/%s any more: take it out of packages in arch_test.go", dir, name)
			}
		}
	}
	slices.Sort(c.problems)
	return slices.Compact(c.problems)
}

func (c *checker) report(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func (c *checker) file(name string, text []byte) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.SkipObjectResolution)
	if err != nil {
		c.report("%v", err)
		return
	}
	dir, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
	p, listed := c.packages[dir]
	if !listed {
		return
	}
	names := map[string]string{} // by what a file calls an import: its path
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		called := path.Base(imported)
		if spec.Name != nil {
			called = spec.Name.Name
		}
		names[called] = imported
		c.imported(name, dir, p, test, called, imported)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.GoStmt); ok && p.tier == core && !test {
			c.report("%s: starts a goroutine, and %s is the pure core: what runs at the same time is decided outside", files.Position(s.Pos()), dir)
		}
		if s, ok := n.(*ast.SelectorExpr); ok && !test {
			if x, ok := s.X.(*ast.Ident); ok && names[x.Name] != "" {
				c.uses(files.Position(s.Pos()), dir, p, names[x.Name], s.Sel.Name)
			}
		}
		return true
	})
}

// imported checks one import of one file.
func (c *checker) imported(name, dir string, p pkg, test bool, called, imported string) {
	if strings.Contains(imported, "k8s.io/") && dir != "internal/kube" {
		c.report("%s: imports %s: Kubernetes is known to internal/kube alone, its client is larger than everything else together", name, imported)
	}
	if strings.HasPrefix(imported, "cel.dev/") && dir != "internal/judge" {
		c.report("%s: imports %s: CEL is known to internal/judge alone, as it costs the start of every program", name, imported)
	}
	if inner, ours := strings.CutPrefix(imported, module); ours {
		short := strings.TrimPrefix(inner, "internal/")
		switch {
		case inner == dir: // an external test of its own package
		case slices.Contains(strings.Fields(p.imports), short):
			c.used[dir+" "+inner] = c.used[dir+" "+inner] || !test
		case test && slices.Contains(strings.Fields(p.tests), short):
			c.used[dir+" "+inner] = true
		default:
			c.report("%s: %s is %s and may not import %s: %s. If it must, say so in packages in arch_test.go", name, dir, tierNames[p.tier], inner, p.why)
		}
		return
	}
	if p.tier != core || test {
		return
	}
	if called == "." {
		c.report("%s: a nameless import of %s hides what the pure core uses", name, imported)
	}
	for _, bad := range impure {
		if (imported == bad || strings.HasPrefix(imported, bad+"/")) && exempt[dir+" "+imported] == "" {
			c.report("%s: imports %s, and %s is the pure core: it gets what it needs as arguments", name, imported, dir)
		}
	}
}

// uses checks one use of an imported name.
func (c *checker) uses(at token.Position, dir string, p pkg, imported, name string) {
	if imported == "os" && name == "Exit" && path.Base(at.Filename) != "main.go" {
		c.report("%s: calls os.Exit: only main ends the process, everything else returns an error", at)
	}
	if p.tier != core {
		return
	}
	if imported == "time" && slices.Contains(clock, name) {
		c.report("%s: uses time.%s, and %s is the pure core: it gets the time as an argument", at, name, dir)
	}
	if prefix := exempt[dir+" "+imported]; prefix != "" && !strings.HasPrefix(name, prefix) {
		c.report("%s: uses %s.%s, and %s may use only %s… of it", at, path.Base(imported), name, dir, prefix)
	}
}
