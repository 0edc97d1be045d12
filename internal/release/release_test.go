package release

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of this package anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// site is a release of two services.
func site() Release {
	web := Component{
		Spec: Spec{
			Artifact: digest.FromString("manifest"),
			Tree:     digest.FromString("tree"),
			Settings: digest.FromString("settings"),
			Files: []ConfigFile{
				{Path: "/etc/nginx/nginx.conf", Digest: digest.FromString("conf"), Size: 4, Mode: 0o644},
				{Path: "/etc/nginx/site.key", Digest: digest.FromString("key"), Size: 3, Mode: 0o400, UID: 33, GID: 33},
			},
			Command:      []string{"/usr/sbin/nginx", "-g", "daemon off;"},
			WorkDir:      "/",
			UID:          33,
			GID:          33,
			Port:         8080,
			Env:          map[string]string{"LANG": "C.UTF-8", "GREETING": "grüß <dich> & \"mich\"\n", "EMPTY": ""},
			Health:       &Health{HTTP: "/healthz", IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 3, StartMS: 30000},
			MilliCPU:     500,
			Memory:       128 << 20,
			PIDs:         512,
			StopSignal:   "SIGQUIT",
			StopGraceMS:  10000,
			Tmpfs:        []Tmpfs{{Path: "/tmp", Size: 16 << 20, Mode: 0o1777}, {Path: "/var/lib/nginx", Size: 1 << 20, Mode: 0o755}},
			Capabilities: []string{"CAP_NET_BIND_SERVICE"},
		},
		Replicas: 2,
		DrainMS:  10000,
		Route:    &Route{Host: "example.org", Path: "/", HoldMS: 5000},
	}
	worker := Component{
		Spec: Spec{
			Artifact: digest.FromString("worker"), Tree: digest.FromString("worker tree"), Settings: digest.FromString("empty"),
			Command: []string{"/usr/bin/worker"}, WorkDir: "/", UID: 65532, GID: 65532, StopSignal: "SIGTERM", StopGraceMS: 1000,
		},
		Replicas: 1,
	}
	return Release{
		Schema: Schema,
		App:    "site",
		Environments: map[string]Environment{
			"production": {Platform: "local", Rollout: Rollout{Strategy: "blue-green"}, Listen: "127.0.0.1:8080", Keep: 5,
				Components: map[string]Component{"web": web, "worker": worker}},
			"staging": {Platform: "local", Rollout: Rollout{Strategy: "blue-green"}, Keep: 1,
				Components: map[string]Component{"worker": worker}},
		},
	}
}

func TestCanonicalGolden(t *testing.T) {
	rel := site()
	doc, err := rel.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "site.json", doc)
	name, err := rel.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(doc); name != want {
		t.Errorf("Digest = %s, want that of the document, %s", name, want)
	}
	// The digest names releases for ever: a change of it breaks every record that names one.
	const want = "sha256:5977cd984b43a9a2e364636466854911c3f2afc27b53266c45350f38a174f8d7"
	if string(name) != want {
		t.Errorf("Digest = %s, want %s", name, want)
	}
	const wantSpec = "sha256:690551f094ac24de4f181076280d5a3add8c84fe65156b4cab2145e2ed785671"
	if d := rel.Environments["production"].Components["web"].Spec.Digest(); string(d) != wantSpec {
		t.Errorf("Spec.Digest = %s, want %s", d, wantSpec)
	}
	back, err := Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rel, back); diff != "" {
		t.Errorf("Parse(Canonical) (-want +got):\n%s", diff)
	}
}

func TestParseRefusesOtherBytes(t *testing.T) {
	doc, err := site().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	text := string(doc)
	for name, c := range map[string]struct {
		doc  string
		kind fault.Kind
		what string
	}{
		"empty":           {"", fault.Invalid, "EOF"},
		"not JSON":        {"ashlar", fault.Invalid, "invalid character"},
		"null":            {"null", fault.Invalid, `schema is ""`},
		"an array":        {"[]", fault.Invalid, "cannot unmarshal array"},
		"white space":     {text + "\n", fault.Refused, "not in canonical form"},
		"two documents":   {text + text, fault.Invalid, "follows the end"},
		"unknown key":     {strings.Replace(text, `"app":`, `"ap":1,"app":`, 1), fault.Invalid, `unknown field "ap"`},
		"key twice":       {strings.Replace(text, `"app":"site"`, `"app":"site","app":"site"`, 1), fault.Refused, "not in canonical form"},
		"key case":        {strings.Replace(text, `"app":`, `"APP":`, 1), fault.Refused, "not in canonical form"},
		"escaped letter":  {strings.Replace(text, `"site"`, `"\u0073ite"`, 1), fault.Refused, "not in canonical form"},
		"float":           {strings.Replace(text, `"replicas":2`, `"replicas":2.0`, 1), fault.Invalid, "cannot unmarshal number"},
		"large integer":   {strings.Replace(text, `"memory":134217728`, `"memory":9007199254740993`, 1), fault.Invalid, "memory is 9007199254740993"},
		"explicit zero":   {strings.Replace(text, `"port":8080`, `"port":8080,"uid":33`, 1), fault.Refused, "not in canonical form"},
		"other schema":    {strings.Replace(text, "release/v1", "release/v9", 1), fault.Invalid, "this program knows"},
		"invalid UTF-8":   {strings.Replace(text, "C.UTF-8", "C.\xff", 1), fault.Refused, "not in canonical form"},
		"dotted path":     {strings.Replace(text, "/etc/nginx/nginx.conf", "/etc/../etc/passwd", 1), fault.Invalid, "absolute path"},
		"short digest":    {strings.Replace(text, "sha256:", "sha256:0", 1), fault.Invalid, "64 hexadecimal digits"},
		"unsorted files":  {strings.Replace(text, "/etc/nginx/site.key", "/etc/nginx/a.key", 1), fault.Invalid, "files are sorted by path"},
		"deep nesting":    {strings.Repeat("[", 100000), fault.Invalid, "release document"},
		"too large":       {strings.Repeat(" ", MaxSize+1), fault.Invalid, "the limit is"},
		"name of a path":  {strings.Replace(text, `"web":`, `"../web":`, 1), fault.Invalid, `has the name "../web"`},
		"route, no port":  {strings.Replace(text, `"port":8080,`, ``, 1), fault.Invalid, "component without a port"},
		"negative":        {strings.Replace(text, `"replicas":2`, `"replicas":-2`, 1), fault.Invalid, "replicas is -2"},
		"no environments": {`{"app":"site","environments":{},"schema":"ashlar.dev/release/v1"}`, fault.Invalid, "environments has 0 members"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.doc == text {
				t.Fatal("the test changed nothing")
			}
			_, err := Parse([]byte(c.doc))
			var f *fault.Error
			if !errors.As(err, &f) {
				t.Fatalf("Parse = %v, want a fault", err)
			}
			if f.Kind != c.kind || !strings.Contains(f.What, c.what) {
				t.Errorf("Parse = %s %q, want %s with %q", f.Kind, f.What, c.kind, c.what)
			}
		})
	}
}

func TestValidateReportsAllAtOnce(t *testing.T) {
	rel := site()
	rel.App = "Site!"
	web := rel.Environments["production"].Components["web"]
	web.Spec.Command = nil
	web.Spec.Env = map[string]string{"A=B": "x", "C": "\xff"}
	web.Replicas = -1
	rel.Environments["production"].Components["web"] = web
	err := rel.Validate()
	var list fault.List
	if !errors.As(err, &list) {
		t.Fatalf("Validate = %v, want a list", err)
	}
	golden(t, "validate.txt", []byte(list.Error()+"\n"))
	if _, err := rel.Canonical(); err == nil {
		t.Error("Canonical gave a document of an invalid release")
	}
}

// Two encoders of the same release, whose maps were filled in different orders,
// agree, and reading gives back what was written.
func TestCanonicalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rel := drawRelease(t)
		doc, err := rel.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(doc)
		if err != nil {
			t.Fatalf("Parse(%s): %v", doc, err)
		}
		if diff := cmp.Diff(rel, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("Parse(Canonical) (-want +got):\n%s", diff)
		}
		again, err := back.Canonical()
		if err != nil || string(again) != string(doc) {
			t.Fatalf("Canonical(Parse(doc)) = %s, %v; want %s", again, err, doc)
		}
		for name, env := range rel.Environments {
			for comp, c := range env.Components {
				other := back.Environments[name].Components[comp].Spec
				if c.Spec.Digest() != other.Digest() {
					t.Fatalf("Spec.Digest of %s/%s differs after a round trip", name, comp)
				}
			}
		}
	})
}

func drawRelease(t *rapid.T) Release {
	name := rapid.StringMatching(`[a-z]([a-z0-9-]{0,8}[a-z0-9])?`)
	envs := rapid.MapOfN(name, rapid.Custom(drawEnvironment), 1, 3)
	return Release{Schema: Schema, App: name.Draw(t, "app"), Environments: envs.Draw(t, "environments")}
}

func drawEnvironment(t *rapid.T) Environment {
	name := rapid.StringMatching(`[a-z]([a-z0-9-]{0,8}[a-z0-9])?`)
	return Environment{
		Platform: "local", Rollout: Rollout{Strategy: "blue-green"},
		Listen:     rapid.SampledFrom([]string{"", "127.0.0.1:8080", "[::1]:80"}).Draw(t, "listen"),
		Keep:       rapid.IntRange(0, 9).Draw(t, "keep"),
		Components: rapid.MapOfN(name, rapid.Custom(drawComponent), 1, 3).Draw(t, "components"),
	}
}

func drawComponent(t *rapid.T) Component {
	text := rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != 0 }))
	anyDigest := rapid.Map(rapid.String(), digest.FromString)
	c := Component{
		Spec: Spec{
			Artifact: anyDigest.Draw(t, "artifact"), Tree: anyDigest.Draw(t, "tree"), Settings: anyDigest.Draw(t, "settings"),
			Command: rapid.SliceOfN(text, 1, 4).Draw(t, "command"),
			WorkDir: "/", UID: rapid.IntRange(0, 1<<32-2).Draw(t, "uid"), Port: rapid.IntRange(1, 65535).Draw(t, "port"),
			Env:    rapid.MapOfN(text.Filter(func(s string) bool { return s != "" && !strings.Contains(s, "=") }), text, 0, 4).Draw(t, "env"),
			Memory: rapid.Int64Range(0, maxInteger).Draw(t, "memory"), StopSignal: "SIGTERM",
			Capabilities: rapid.SliceOfN(rapid.SampledFrom([]string{"CAP_CHOWN", "CAP_KILL"}), 0, 2).Draw(t, "capabilities"),
		},
		Replicas: rapid.IntRange(0, 100).Draw(t, "replicas"),
	}
	if rapid.Bool().Draw(t, "routed") {
		c.Route = &Route{Path: "/" + rapid.StringMatching(`[a-z]{0,4}`).Draw(t, "path")}
		if rapid.Bool().Draw(t, "tcp") {
			c.Route = &Route{TCP: rapid.IntRange(1, 65535).Draw(t, "tcp port"), Drains: &Drains{TCPMS: rapid.Int64Range(1, 9).Draw(t, "drain")}}
		}
	}
	drawState(t, &c)
	return c
}

// drawState draws what site does not have, from few values, so that two draws are often
// alike.
func drawState(t *rapid.T, c *Component) {
	few := rapid.IntRange(1, 2)
	if rapid.Bool().Draw(t, "secret") {
		c.Spec.Secrets = []Secret{{
			Name: "key", Version: few.Draw(t, "version"), Sealed: digest.FromString(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "sealed")),
			Path: rapid.SampledFrom([]string{"/key", "/run/key"}).Draw(t, "secret path"),
		}}
	}
	if rapid.Bool().Draw(t, "health") {
		c.Spec.Health = &Health{IntervalMS: 1, TimeoutMS: 1, Successes: 1, Failures: 1, StartMS: 1, SettleMS: rapid.Int64Range(0, 1).Draw(t, "settle")}
		if rapid.Bool().Draw(t, "exec") {
			c.Spec.Health.Exec = rapid.SliceOfN(rapid.SampledFrom([]string{"check", "a b"}), 1, 2).Draw(t, "probe")
		}
	}
	if rapid.Bool().Draw(t, "hook") {
		c.Hooks = []Hook{{When: rapid.SampledFrom(hookTimes).Draw(t, "when"), Command: []string{"x"}, TimeoutMS: int64(few.Draw(t, "timeout"))}}
	}
	if rapid.Bool().Draw(t, "schema") {
		c.Schemas = []DataSchema{{Name: "data", Reads: Range{1, 2}, Writes: few.Draw(t, "writes"), Leaves: few.Draw(t, "leaves")}}
	}
	switch {
	case c.Route != nil:
	case rapid.Bool().Draw(t, "job"):
		c.Kind, c.Schedule, c.Replicas = KindJob, rapid.SampledFrom([]string{"* * * * *", "0 6 * * *"}).Draw(t, "schedule"), 1
	default:
		c.Kind = rapid.SampledFrom([]string{"", KindService, KindWorker}).Draw(t, "kind")
	}
}

func FuzzParse(f *testing.F) {
	doc, err := site().Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	if doc, err = guestbook().Canonical(); err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte(`{"app":"a","environments":{},"schema":"ashlar.dev/release/v1"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		rel, err := Parse(doc)
		if err != nil {
			return
		}
		again, err := rel.Canonical()
		if err != nil || string(again) != string(doc) {
			t.Fatalf("Parse accepted bytes that Canonical does not write:\n%q\n%q (%v)", doc, again, err)
		}
	})
}
