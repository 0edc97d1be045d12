package release

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// guestbook is a release that uses what site does not: strategy, gates, kinds, state.
func guestbook() Release {
	base := Spec{
		Artifact: digest.FromString("a"), Tree: digest.FromString("t"), Settings: digest.FromString("s"),
		Command: []string{"/usr/bin/x"}, WorkDir: "/", StopSignal: "SIGTERM",
	}
	web, redis, mailer, report := base, base, base, base
	web.Port, redis.Port = 8080, 6379
	web.Env = map[string]string{"REDIS_ADDR": "redis:6379"}
	web.Health = &Health{Exec: []string{"/usr/bin/x", "check"}, IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 3, StartMS: 1000, SettleMS: 2000}
	web.Secrets = []Secret{
		{Name: "redis-password", Version: 3, Sealed: digest.FromString("value"), Path: "/run/secrets/redis-password", Env: "REDIS_PASSWORD"},
		{Name: "tls-key", Version: 1, Sealed: digest.FromString("key"), Path: "/etc/key"},
	}
	web.Volumes = []Mount{{Path: "/srv", Volume: "uploads", Mode: VolumeShared, ReadOnly: true}}
	redis.Volumes = []Mount{{Path: "/data", Volume: "data", Mode: VolumeExclusive}}
	return Release{Schema: Schema, App: "guestbook", Environments: map[string]Environment{"production": {
		Platform: "local", Listen: "127.0.0.1:443", Keep: 5,
		Rollout: Rollout{
			Strategy: "canary", Steps: []Step{{Weight: 5, PauseMS: 60000}, {Weight: 50, Approve: true}, {Weight: 100}},
			Match: &Match{Header: "X-Canary", Value: "always"}, Sticky: "release",
			Analysis: &Analysis{
				Requests: 100, Errors: "1", Slower: "1.5", Quantile: 950, WindowMS: 600000, Prometheus: "http://127.0.0.1:9090",
				Queries: []Query{{Name: "queue", Expr: "max(queue)", Min: "-1", Max: "0.5"}},
			},
			BakeMS: 600000, DeadlineMS: 600000, Queue: QueueCoalesce,
			Freeze: []Window{{Days: []string{"sat", "sun"}, From: "00:00", To: "00:00", Zone: "Europe/Berlin", Until: "2030-01-06"}},
		},
		TLS:     &TLS{Certificate: "/etc/ssl/site.pem", Key: "/etc/ssl/site.key"},
		Events:  []Webhook{{URL: "https://hooks.example.test/", Secret: "webhook-key"}},
		Volumes: map[string]Volume{"data": {Mode: VolumeExclusive, Snapshot: true}, "uploads": {Mode: VolumeShared}},
		Components: map[string]Component{
			"web": {
				Kind: KindService, Spec: web, Replicas: 3, Needs: []string{"redis"},
				Route:   &Route{Path: "/", Drains: &Drains{WebSocketMS: 300000}},
				Hooks:   []Hook{{When: HookBefore, Command: []string{"/usr/bin/x", "migrate"}, TimeoutMS: 60000}, {When: HookRollback, Command: []string{"/usr/bin/x", "tell"}, TimeoutMS: 1000}},
				Schemas: []DataSchema{{Name: "guestbook", Reads: Range{1, 2}, Writes: 2, Leaves: 2}},
			},
			"redis":  {Kind: KindService, Spec: redis, Replicas: 1, Route: &Route{TCP: 6379, Listen: "127.0.0.1:6379", HoldMS: 20000}},
			"mailer": {Kind: KindSingleton, Spec: mailer, Replicas: 1, Needs: []string{"web"}},
			"report": {Kind: KindJob, Spec: report, Replicas: 1, Schedule: "*/15 * * * *"},
		},
	}}}
}

// otherwise changes what can be changed of guestbook's environment.
func otherwise(e Environment) Environment {
	e.Rollout = Rollout{Strategy: "rolling", Surge: 1, Unavailable: 2, Batch: 3, Preview: "p", Approve: true, WarmMS: 1000, Queue: QueueVerify}
	e.TLS, e.Events = &TLS{ACME: "https://acme.example.test/", Domains: []string{"a.test"}}, nil
	e.Volumes = map[string]Volume{"data": {Mode: VolumeExclusive}, "more": {Mode: VolumeShared}}
	web, redis := e.Components["web"], e.Components["redis"]
	web.Spec.Secrets = []Secret{{Name: "redis-password", Version: 3, Sealed: digest.FromString("other"), Path: "/run/secrets/redis-password"}}
	web.Spec.Volumes = []Mount{{Path: "/srv", Volume: "more", Mode: VolumeShared}}
	web.Spec.Health = &Health{HTTP: "/", IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 3, StartMS: 1000}
	web.Route, web.Needs, web.Schemas = &Route{TCP: 80}, nil, nil
	redis.Kind, redis.Route = KindWorker, nil
	e.Components = map[string]Component{"web": web, "redis": redis, "mailer": e.Components["mailer"]}
	return e
}

func TestCanonicalGuestbook(t *testing.T) {
	doc, err := guestbook().Canonical()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "guestbook.json", doc)
	back, err := Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(guestbook(), back); diff != "" {
		t.Errorf("Parse(Canonical) (-want +got):\n%s", diff)
	}
}

// TestValidateGuestbook breaks one thing at a time.
func TestValidateGuestbook(t *testing.T) {
	for want, edit := range map[string]func(e *Environment, web, redis *Component){
		`rollout.strategy is "cannary"; it must be one of`:              func(e *Environment, _, _ *Component) { e.Rollout.Strategy = "cannary" },
		"rollout.steps[1].weight is 5; it must be 6 to 100":             func(e *Environment, _, _ *Component) { e.Rollout.Steps[1].Weight = 5 },
		"rollout.steps end at 50":                                       func(e *Environment, _, _ *Component) { e.Rollout.Steps = e.Rollout.Steps[:2] },
		"rollout.steps has 3 members":                                   func(e *Environment, _, _ *Component) { e.Rollout.Strategy = "recreate" },
		"nothing could be replaced":                                     func(e *Environment, _, _ *Component) { e.Rollout = Rollout{Strategy: "rolling"} },
		"match must have exactly one":                                   func(e *Environment, _, _ *Component) { e.Rollout.Match.Cookie = "c" },
		`queue is "later"`:                                              func(e *Environment, _, _ *Component) { e.Rollout.Queue = "later" },
		`analysis.errors is "1.0"`:                                      func(e *Environment, _, _ *Component) { e.Rollout.Analysis.Errors = "1.0" },
		"analysis.quantile is 1000":                                     func(e *Environment, _, _ *Component) { e.Rollout.Analysis.Quantile = 1000 },
		"analysis.quantile is 950; it must be 0 to 0":                   func(e *Environment, _, _ *Component) { e.Rollout.Analysis.Slower = "" },
		"analysis.prometheus is missing":                                func(e *Environment, _, _ *Component) { e.Rollout.Analysis.Prometheus = "" },
		"queries[0] has neither min nor max":                            func(e *Environment, _, _ *Component) { e.Rollout.Analysis.Queries[0] = Query{Name: "q", Expr: "x"} },
		`freeze[0].from is "9:00"`:                                      func(e *Environment, _, _ *Component) { e.Rollout.Freeze[0].From = "9:00" },
		`freeze[0].days is "sunday"`:                                    func(e *Environment, _, _ *Component) { e.Rollout.Freeze[0].Days[0] = "sunday" },
		`freeze[0].until is "2030-02-30"`:                               func(e *Environment, _, _ *Component) { e.Rollout.Freeze[0].Until = "2030-02-30" },
		"freeze[0].zone is missing":                                     func(e *Environment, _, _ *Component) { e.Rollout.Freeze[0].Zone = "" },
		"tls has both files and acme":                                   func(e *Environment, _, _ *Component) { e.TLS.ACME, e.TLS.Domains = "https://x", []string{"a"} },
		`tls.key is ""`:                                                 func(e *Environment, _, _ *Component) { e.TLS.Key = "" },
		`events[0].url is "ftp://x"`:                                    func(e *Environment, _, _ *Component) { e.Events[0].URL = "ftp://x" },
		`volumes.data.mode is ""`:                                       func(e *Environment, _, _ *Component) { e.Volumes["data"] = Volume{} },
		"has shared uploads, which the environment does not declare so": func(e *Environment, _, _ *Component) { delete(e.Volumes, "uploads") },
		"replicas is 2; it holds the exclusive volume data":             func(_ *Environment, _, redis *Component) { redis.Replicas = 2 },
		"hooks would hold the exclusive volume data": func(_ *Environment, _, redis *Component) {
			redis.Hooks = []Hook{{When: HookAfter, Command: []string{"x"}, TimeoutMS: 1}}
		},
		"has the exclusive volume data, which redis has":         func(_ *Environment, web, redis *Component) { web.Spec.Volumes = redis.Spec.Volumes },
		`needs names "nobody"`:                                   func(_ *Environment, web, _ *Component) { web.Needs = []string{"nobody"} },
		"in a circle: mailer needs web needs redis needs mailer": func(_ *Environment, _, redis *Component) { redis.Needs = []string{"mailer"} },
		"route belongs to a worker":                              func(_ *Environment, web, _ *Component) { web.Kind = KindWorker },
		`schedule is "" of a job`:                                func(_ *Environment, web, _ *Component) { web.Kind = KindJob },
		`schedule is "61 * * * *"`: func(e *Environment, _, _ *Component) {
			c := e.Components["report"]
			c.Schedule = "61 * * * *"
			e.Components["report"] = c
		},
		"replicas is 3 of a singleton":                     func(_ *Environment, web, _ *Component) { web.Kind = KindSingleton },
		`hooks[0].when is "during"`:                        func(_ *Environment, web, _ *Component) { web.Hooks[0].When = "during" },
		"schemas.guestbook.leaves is 3; it must be 1 to 2": func(_ *Environment, web, _ *Component) { web.Schemas[0].Leaves = 3 },
		"schemas.guestbook.reads.max is 0":                 func(_ *Environment, web, _ *Component) { web.Schemas[0].Reads = Range{1, 0} },
		"secrets[0].version is 0":                          func(_ *Environment, web, _ *Component) { web.Spec.Secrets[0].Version = 0 },
		`secrets[0].sealed has the digest ""`:              func(_ *Environment, web, _ *Component) { web.Spec.Secrets[0].Sealed = "" },
		`secrets[0].env is "REDIS_ADDR"`:                   func(_ *Environment, web, _ *Component) { web.Spec.Secrets[0].Env = "REDIS_ADDR" },
		"has a after b; it must be sorted":                 func(_ *Environment, web, _ *Component) { web.Spec.Secrets[0].Name, web.Spec.Secrets[1].Name = "b", "a" },
		"health has both http and exec":                    func(_ *Environment, web, _ *Component) { web.Spec.Health.HTTP = "/" },
		"route has both tcp and host or path":              func(_ *Environment, _, redis *Component) { redis.Route.Path = "/" },
		"route.listen is of a tcp route alone":             func(_ *Environment, web, _ *Component) { web.Route.Listen = "127.0.0.1:1" },
	} {
		rel := guestbook()
		e := rel.Environments["production"]
		web, redis := e.Components["web"], e.Components["redis"]
		edit(&e, &web, &redis)
		e.Components["web"], e.Components["redis"] = web, redis
		rel.Environments["production"] = e
		err := rel.Validate()
		var list fault.List
		if !errors.As(err, &list) || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate = %v, want %q", err, want)
		}
	}
}
