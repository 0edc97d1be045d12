package release

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// change returns site with its production web component changed.
func change(edit func(c *Component)) *Release {
	rel := clone(site())
	web := rel.Environments["production"].Components["web"]
	edit(&web)
	rel.Environments["production"].Components["web"] = web
	return &rel
}

func clone(r Release) Release {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	var out Release
	if err := json.Unmarshal(raw, &out); err != nil {
		panic(err)
	}
	return out
}

func TestDiffGolden(t *testing.T) {
	base := site()
	var b strings.Builder
	show := func(title string, old, next *Release, env string) {
		fmt.Fprintf(&b, "# %s\n", title)
		for _, c := range Diff(old, next, env) {
			fmt.Fprintf(&b, "%s %s %d -> %d\n", c.Component, c.Kind, c.From, c.To)
			for _, r := range c.Reasons {
				fmt.Fprintf(&b, "  %s\n", r)
			}
		}
		for _, r := range DiffEnvironment(old, next, env) {
			fmt.Fprintf(&b, "environment: %s\n", r)
		}
		b.WriteString("\n")
	}
	show("the same release", &base, &base, "production")
	show("the first release", nil, &base, "production")
	show("no release any more", &base, nil, "production")
	show("an environment that neither has", &base, &base, "nowhere")
	show("another artifact", &base, change(func(c *Component) {
		c.Spec.Artifact, c.Spec.Tree = digest.FromString("manifest 2"), digest.FromString("tree 2")
	}), "production")
	show("the same artifact, sealed otherwise", &base, change(func(c *Component) { c.Spec.Tree = digest.FromString("tree 2") }), "production")
	show("config files", &base, change(func(c *Component) {
		c.Spec.Settings = digest.FromString("settings 2")
		c.Spec.Files[0].Digest = digest.FromString("conf 2")
		c.Spec.Files[0].Mode = 0o600
		c.Spec.Files[1] = ConfigFile{Path: "/etc/nginx/tls.key", Digest: digest.FromString("key"), Mode: 0o400}
	}), "production")
	show("env values", &base, change(func(c *Component) {
		c.Spec.Env = map[string]string{"LANG": "de_DE.UTF-8", "NEW": "", "EMPTY": ""}
	}), "production")
	show("everything else of a spec", &base, change(func(c *Component) {
		s := &c.Spec
		s.Command = []string{"/usr/sbin/nginx", "-q"}
		s.WorkDir, s.UID, s.Port = "/srv", 34, 0
		s.Health = nil
		s.MilliCPU, s.Memory, s.PIDs = 0, 256<<20, 100
		s.StopSignal, s.StopGraceMS = "SIGTERM", 2500
		s.Tmpfs = s.Tmpfs[:1]
		s.Tmpfs[0].Size = 1<<20 + 1
		s.Capabilities = nil
	}), "production")
	show("health check times", &base, change(func(c *Component) { c.Spec.Health.IntervalMS, c.Spec.Health.Failures = 500, 5 }), "production")
	show("settings layer alone", &base, change(func(c *Component) { c.Spec.Settings = digest.FromString("settings 2") }), "production")
	show("scaled", &base, change(func(c *Component) { c.Replicas = 5 }), "production")
	show("rerouted", &base, change(func(c *Component) { c.Route.Host, c.Route.HoldMS, c.DrainMS = "", 1000, 0 }), "production")
	show("no route any more", &base, change(func(c *Component) { c.Route = nil }), "production")
	show("replaced, rerouted and scaled", &base, change(func(c *Component) {
		c.Spec.PIDs, c.Route.Path, c.Replicas = 0, "/app", 1
	}), "production")

	full := guestbook()
	show("everything that guestbook has", &full, &full, "production")
	next := guestbook()
	next.Environments["production"] = otherwise(next.Environments["production"])
	show("everything of guestbook otherwise", &full, &next, "production")
	rotated := guestbook()
	rotated.Environments["production"].Components["web"].Spec.Secrets[0].Version = 4
	rotated.Environments["production"].Components["web"].Spec.Secrets[0].Sealed = digest.FromString("value 4")
	show("a secret rotated", &full, &rotated, "production")
	hooks := guestbook()
	redis := hooks.Environments["production"].Components["redis"]
	redis.Needs, redis.Hooks = []string{"mailer"}, []Hook{{When: HookAfter, Command: []string{"/bin/warm", "a b"}, TimeoutMS: 1000}}
	redis.Schemas = []DataSchema{{Name: "keys", Reads: Range{1, 3}, Writes: 3, Leaves: 3}}
	hooks.Environments["production"].Components["redis"] = redis
	show("what is beside instances", &full, &hooks, "production")

	other := clone(base)
	env := other.Environments["production"]
	env.Listen, env.Rollout.Strategy, env.Keep = "127.0.0.1:9090", "canary", 2
	delete(env.Components, "worker")
	env.Components["api"] = site().Environments["production"].Components["worker"]
	other.Environments["production"] = env
	show("another address, a component for another", &base, &other, "production")
	golden(t, "diff.txt", []byte(b.String()))
}

// A component is replaced exactly when its spec's digest differs, whatever
// differs in it, and a replacement always has a reason.
func TestDiffProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) *Release {
			env := drawEnvironment(t)
			env.Components = map[string]Component{"web": rapid.Custom(drawComponent).Draw(t, label)}
			return &Release{Schema: Schema, App: "a", Environments: map[string]Environment{"e": env}}
		}
		a, b := draw("old"), draw("new")
		if rapid.Bool().Draw(t, "same spec") {
			c := b.Environments["e"].Components["web"]
			c.Spec = a.Environments["e"].Components["web"].Spec
			b.Environments["e"].Components["web"] = c
		}
		got := Diff(a, b, "e")[0]
		differ := a.Environments["e"].Components["web"].Spec.Digest() != b.Environments["e"].Components["web"].Spec.Digest()
		if (got.Kind == Replaced) != differ {
			t.Fatalf("specs differ: %v, change: %+v", differ, got)
		}
		if (got.Kind == Unchanged) != (len(got.Reasons) == 0) {
			t.Fatalf("a change without a reason, or a reason without a change: %+v", got)
		}
		for _, r := range got.Reasons {
			if r.From == r.To {
				t.Fatalf("reason %+v is none", r)
			}
		}
	})
}
