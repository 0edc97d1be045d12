package definition_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/definition"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
)

var update = flag.Bool("update", false, "write the golden files and docs/reference.md anew")

// files is what `from:` finds beside the definitions of these tests.
var files = fstest.MapFS{
	"nginx.conf":      {Data: []byte("events {}\n")},
	"conf/hello.conf": {Data: []byte("level = info\n")},
	"large.conf":      {Data: make([]byte, 1<<20+1)},
}

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); go test ./internal/definition -update writes it anew:\n%s", name, diff)
	}
}

// TestMistakes shows what a user sees for each kind of mistake.
func TestMistakes(t *testing.T) {
	names, err := filepath.Glob("testdata/bad-*.yaml")
	if err != nil || len(names) < 10 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = definition.Parse("ashlar.yaml", src, files)
			var list fault.List
			if !errors.As(err, &list) {
				t.Fatalf("got %v, want a fault.List", err)
			}
			for _, one := range list {
				if one.Kind != fault.Invalid || one.Where == "" || one.Fix == "" {
					t.Errorf("incomplete: %#v", one)
				}
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".golden", []byte(err.Error()+"\n"))
		})
	}
}

func parse(t *testing.T, src string) *definition.Definition {
	t.Helper()
	def, err := definition.Parse("site/ashlar.yaml", []byte(src), files)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return def
}

const minimal = `
app: site
components:
  web:
    build: [{go: {package: ./cmd/web}}]
    run: {command: [/usr/bin/web], port: 8080, health: {tcp: true}, tmpfs: {/tmp: {}, /run: 1.5MiB}, files: {/etc/a: {content: b}}}
    route: {}
environments:
  production: {}
`

// TestDefaults holds the defaults that the types promise in their comments.
func TestDefaults(t *testing.T) {
	def := parse(t, minimal)
	want := definition.Settings{
		Command: []string{"/usr/bin/web"}, WorkDir: "/", User: "65532:65532", Port: 8080,
		Files:     []definition.ConfigFile{{Path: "/etc/a", Content: []byte("b"), Mode: 0o644}},
		Health:    &definition.Health{Interval: time.Second, Timeout: time.Second, Successes: 1, Failures: 3, Start: 30 * time.Second},
		Resources: definition.Resources{PIDs: 512},
		Stop:      definition.Stop{Signal: "SIGTERM", Grace: 10 * time.Second},
		Drain:     10 * time.Second,
		Tmpfs:     []definition.Tmpfs{{Path: "/run", Size: 3 << 19, Mode: 0o1777}, {Path: "/tmp", Size: 16 << 20, Mode: 0o1777}},
		Route:     &definition.Route{Path: "/", Hold: 5 * time.Second},
		Replicas:  1,
	}
	expect := &definition.Definition{
		App: "site", Dir: "site",
		Components: []definition.Component{{Name: "web", Kind: "service", Settings: want, Build: []definition.Source{{
			Go:    &definition.GoSource{Package: "./cmd/web", To: "/usr/bin/web", Tags: []string{}, LDFlags: []string{}},
			Where: "site/ashlar.yaml:5:13",
		}}}},
		Environments: []definition.Environment{{
			Name: "production", Platform: "local", Rollout: release.Rollout{Strategy: "blue-green", DeadlineMS: 600_000, Queue: "refuse"}, Listen: "127.0.0.1:8080", Keep: 5,
			Components: map[string]definition.Settings{"web": want},
		}},
	}
	if diff := cmp.Diff(expect, def); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestSources(t *testing.T) {
	src, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mode := uint32(0o640)
	want := []definition.Source{
		{Debian: &definition.DebianSource{Suite: "bookworm", Components: []string{"main", "contrib"}, Packages: []string{"nginx-light"}, Exclude: []string{"perl-base"}, Waive: map[string]string{"tzdata": "UTC is enough"}}, Where: "site/ashlar.yaml:6:9"},
		{Files: &definition.FilesSource{From: []string{"content/**"}, To: "/srv/www/", Mode: &mode, UID: 33, GID: 34, Exclude: []string{"content/drafts/**"}}, Where: "site/ashlar.yaml:14:9"},
		{Files: &definition.FilesSource{From: []string{"a/b/*.txt", "a/c/[xy].txt"}, Base: "a", To: "/srv/", Exclude: []string{}}, Where: "site/ashlar.yaml:20:9"},
		{Go: &definition.GoSource{Package: "example.org/tool", To: "/bin/tool", Tags: []string{"netgo"}, LDFlags: []string{"-s", "-X main.version=1.2"}}, Where: "site/ashlar.yaml:24:9"},
	}
	if diff := cmp.Diff(want, parse(t, string(src)).Components[0].Build); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestMerge shows what an environment's override does to each kind of value.
func TestMerge(t *testing.T) {
	src, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	def := parse(t, string(src))
	base := def.Components[0].Settings
	env := map[string]map[string]definition.Settings{}
	for _, e := range def.Environments {
		env[e.Name] = e.Components
	}
	same := env["production"]["web"]
	same.Replicas = base.Replicas
	if diff := cmp.Diff(base, same); diff != "" {
		t.Errorf("production differs from the component in more than replicas:\n%s", diff)
	}
	if got := env["production"]["web"].Replicas; got != 3 {
		t.Errorf("the environment's replicas: got %d, want 3", got)
	}
	want := base
	want.Command = []string{"/usr/bin/other"}
	want.Env = map[string]string{"A": "changed", "C": "3"}
	want.Files = []definition.ConfigFile{
		{Path: "/etc/inline", Content: []byte("level = info\n"), Mode: 0o600, UID: 5, GID: 5},
		{Path: "/etc/nginx/nginx.conf", Content: []byte("events {}\n"), Mode: 0o644},
	}
	want.Health = &definition.Health{Interval: 2 * time.Second, Timeout: time.Second, Successes: 1, Failures: 3, Start: time.Minute}
	want.Resources = definition.Resources{MilliCPU: 1500, PIDs: 512}
	want.Tmpfs = nil
	want.Replicas = 7
	want.Route = nil
	if diff := cmp.Diff(want, env["staging"]["web"]); diff != "" {
		t.Errorf("staging (-want +got):\n%s", diff)
	}
}

// TestNullTakesAway shows that an environment can do without what the component
// has, also where only one of two keys may be there.
func TestNullTakesAway(t *testing.T) {
	def := parse(t, strings.Replace(minimal, "production: {}",
		"production: {components: {web: {run: {health: null, files: {/etc/a: null}}}}}", 1))
	if got := def.Environments[0].Components["web"]; got.Health != nil || len(got.Files) > 0 {
		t.Errorf("health %v, files %v; want neither", got.Health, got.Files)
	}
}

// TestRollouts shows every key of how releases are laid, of components' kinds and
// of state, as the types hold it.
func TestRollouts(t *testing.T) {
	src, err := os.ReadFile("testdata/rollouts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	def := parse(t, string(src))
	for i := range def.Components {
		def.Components[i].Build = nil
	}
	got, err := json.MarshalIndent(def, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/rollouts.golden", append(got, '\n'))
}

// TestOnlyOne holds that an environment's replicas pass by what runs once at most,
// while what is written for it is taken at its word.
func TestOnlyOne(t *testing.T) {
	src, err := os.ReadFile("testdata/rollouts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for name, s := range parse(t, string(src)).Environments[0].Components {
		got[name] = s.Replicas
	}
	want := map[string]int{"web": 3, "mailer": 3, "redis": 1, "leader": 1, "report": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTemplate(t *testing.T) {
	def, err := definition.Parse("ashlar.yaml", definition.Template("my-app"), fstest.MapFS{})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if def.App != "my-app" || def.Environments[0].Components["web"].Route == nil {
		t.Errorf("got %+v", def)
	}
	golden(t, "testdata/template.golden", definition.Template("site"))
}

// TestShippedExamples holds that what people start from is without mistakes.
func TestShippedExamples(t *testing.T) {
	names, err := filepath.Glob("../../examples/*/ashlar.yaml")
	if err != nil || len(names) < 3 {
		t.Fatalf("%d examples, %v", len(names), err)
	}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := definition.Parse(name, src, os.DirFS(filepath.Dir(name)).(definition.Files)); err != nil {
			t.Errorf("%v", err)
		}
	}
}

func TestReference(t *testing.T) {
	if _, err := definition.Parse("ashlar.yaml", definition.Example(), fstest.MapFS{}); err != nil {
		t.Errorf("the example of the reference is wrong:\n%v", err)
	}
	golden(t, "../../docs/reference.md", definition.Reference())
}

// TestSchema holds that every key of the published schema is explained, and that it
// names the draft it is written in.
func TestSchema(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(definition.Schema(), &doc); err != nil {
		t.Fatal(err)
	}
	if got := doc["$schema"]; got != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema is %v", got)
	}
	defs := doc["$defs"].(map[string]any)
	var walk func(where string, schema map[string]any)
	walk = func(where string, schema map[string]any) {
		keys, _ := schema["properties"].(map[string]any)
		for key, value := range keys {
			one := value.(map[string]any)
			base := one
			if ref, ok := one["$ref"].(string); ok {
				base = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
			}
			if one["description"] == nil && base["description"] == nil || base["title"] == nil {
				t.Errorf("%s.%s has no title or description", where, key)
			}
			walk(where+"."+key, one)
		}
	}
	walk("ashlar.yaml", doc)
	for name, def := range defs {
		walk(name, def.(map[string]any))
	}
}

func BenchmarkParse(b *testing.B) {
	src, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := definition.Parse("ashlar.yaml", src, files); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHostile holds that input made to hurt is refused at once.
func TestHostile(t *testing.T) {
	deep := "the nesting is too deep"
	for name, c := range map[string]struct{ src, want string }{
		"large":      {"a: " + strings.Repeat("x", 1<<20), "at most 1 MiB"},
		"deep lists": {strings.Repeat("[", 1<<18) + strings.Repeat("]", 1<<18), deep},
		"deep maps":  {strings.Repeat("{a: ", 1<<17) + strings.Repeat("}", 1<<17), deep},
		"dashes":     {strings.Repeat("- ", 1<<18) + "a", deep},
		"questions":  {strings.Repeat("? ", 1<<18) + "a", deep},
		"tags":       {strings.Repeat("!a ", 1<<17) + "a", deep},
		"anchors":    {strings.Repeat("&a ", 1<<17) + "a", deep},
		"ladder":     {ladder(), deep},
		"many keys":  {many(), "too long"},
		"alias bomb": {"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\napp: *c\n", "aliases are not used here"},
		"not UTF-8":  {"app: \xff\xfe\n", "byte 0xff is not UTF-8"},
		"NUL":        {"app: a\x00b\n", "U+0000"},
		"turned":     {"app: a\u202eb\n", "U+202E"},
		"escapes":    {`"\e[2Japp": x`, `unknown key "\x1b[2Japp"`},
		"long line":  {"app: {" + strings.Repeat("ä: 1, ", 1<<13) + "}", "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := definition.Parse("ashlar.yaml", []byte(c.src), files)
			var list fault.List
			if !errors.As(err, &list) {
				t.Fatalf("got %v, want a fault.List", err)
			}
			text := err.Error()
			if len(text) > 100_000 || strings.ContainsAny(text, "\x00\x1b\u202e") {
				t.Errorf("the error is %d bytes long, or has raw control characters", len(text))
			}
			if !strings.Contains(text, c.want) {
				t.Errorf("the error does not say %q:\n%s", c.want, text)
			}
		})
	}
}

func ladder() string {
	var b strings.Builder
	for i := range 1000 {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func many() string {
	var b strings.Builder
	for i := range 40_000 {
		b.WriteString("k" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + ": v\n")
	}
	return b.String()
}

// FuzzParse holds that no input makes Parse panic, that it either gives a
// definition or a list of complete faults, and that it gives the same answer twice.
func FuzzParse(f *testing.F) {
	names, _ := filepath.Glob("testdata/*.yaml")
	for _, name := range names {
		if src, err := os.ReadFile(name); err == nil {
			f.Add(src)
		}
	}
	f.Add([]byte(minimal))
	f.Add(definition.Template("app"))
	f.Fuzz(func(t *testing.T, src []byte) {
		def, err := definition.Parse("ashlar.yaml", src, files)
		var list fault.List
		if (def == nil) == (err == nil) || err != nil && !errors.As(err, &list) {
			t.Fatalf("def %v, err %v", def, err)
		}
		for _, one := range list {
			if one.Kind != fault.Invalid || one.What == "" || one.Where == "" || one.Fix == "" {
				t.Errorf("incomplete: %#v", one)
			}
		}
		again, err2 := definition.Parse("ashlar.yaml", src, files)
		if diff := cmp.Diff(def, again); diff != "" {
			t.Error(diff)
		}
		if err != nil && err.Error() != err2.Error() {
			t.Errorf("two answers:\n%v\n%v", err, err2)
		}
	})
}
