package build_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/release"
)

// TestAddresses holds that components are told where the others are, but for what
// they say themselves, and that everything declared reaches the release.
func TestAddresses(t *testing.T) {
	p := newProject(t, map[string]string{"x": "#!/bin/sh\n", "ashlar.yaml": `
app: shop
components:
  web:
    build: [{files: {from: x, to: /bin/x, mode: "0755"}}]
    needs: [key-value]
    schemas: {shop: {writes: 2}}
    run: {command: [/bin/x], port: 80, env: {QUEUE_ADDR: elsewhere:1}, volumes: {data: /data}, health: {exec: [/bin/x], settle: 1s}}
    route: {drains: {websocket: 1m}}
    hooks: {before: {command: [/bin/x, migrate]}}
  key-value: {build: [{files: {from: x, to: /bin/x, mode: "0755"}}], run: {command: [/bin/x], port: 6379}, route: {tcp: 6380, listen: "127.0.0.1:6379"}}
  queue: {build: [{files: {from: x, to: /bin/x, mode: "0755"}}], run: {command: [/bin/x], port: 5672}, route: {tcp: 5672}}
  report: {kind: job, schedule: 0 6 * * *, build: [{files: {from: x, to: /bin/x, mode: "0755"}}], run: {command: [/bin/x]}}
volumes: {data: {}}
environments:
  production: {strategy: {rolling: {surge: 2}}, bake: 1m, events: [{url: https://x.test/}], tls: {certificate: /a, key: /b}}
`})
	def, err := p.define()
	if err != nil {
		t.Fatal(err)
	}
	rel, err := build.Release(t.Context(), p.b, def)
	if err != nil {
		t.Fatal(err)
	}
	env := rel.Environments["production"]
	got := map[string]map[string]string{}
	for name, c := range env.Components {
		got[name] = c.Spec.Env
	}
	both := map[string]string{"KEY_VALUE_ADDR": "key-value:6380", "QUEUE_ADDR": "queue:5672"}
	want := map[string]map[string]string{
		"web":       {"KEY_VALUE_ADDR": "key-value:6380", "QUEUE_ADDR": "elsewhere:1"},
		"key-value": {"QUEUE_ADDR": "queue:5672"},
		"queue":     {"KEY_VALUE_ADDR": "key-value:6380"},
		"report":    both,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	web := env.Components["web"]
	spec := web.Spec
	if web.Ledger == "" {
		t.Error("web has no ledger")
	}
	web.Ledger = ""
	web.Spec = release.Spec{Volumes: spec.Volumes, Health: spec.Health}
	whole := release.Component{
		Kind: "service", Replicas: 1, DrainMS: 10000, Needs: []string{"key-value"},
		Spec: release.Spec{
			Volumes: []release.Mount{{Path: "/data", Volume: "data", Mode: "exclusive"}},
			Health:  &release.Health{Exec: []string{"/bin/x"}, IntervalMS: 1000, TimeoutMS: 1000, Successes: 1, Failures: 3, StartMS: 30000, SettleMS: 1000},
		},
		Route:   &release.Route{Path: "/", HoldMS: 5000, Drains: &release.Drains{WebSocketMS: 60000}},
		Hooks:   []release.Hook{{When: "before", Command: []string{"/bin/x", "migrate"}, TimeoutMS: 300000}},
		Schemas: []release.DataSchema{{Name: "shop", Reads: release.Range{Min: 2, Max: 2}, Writes: 2}},
	}
	if diff := cmp.Diff(whole, web); diff != "" {
		t.Errorf("web (-want +got):\n%s", diff)
	}
	env.Components = nil
	around := release.Environment{
		Platform: "local", Listen: "127.0.0.1:8080", Keep: 5, TLS: &release.TLS{Certificate: "/a", Key: "/b"},
		Rollout: release.Rollout{Strategy: "rolling", Surge: 2, BakeMS: 60000, DeadlineMS: 600000, Queue: "refuse"},
		Volumes: map[string]release.Volume{"data": {Mode: "exclusive"}}, Events: []release.Webhook{{URL: "https://x.test/"}},
	}
	if diff := cmp.Diff(around, env); diff != "" {
		t.Errorf("production (-want +got):\n%s", diff)
	}
}
