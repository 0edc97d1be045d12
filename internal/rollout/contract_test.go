package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestContract: everybody who meets the data can read it, of both releases, of every
// component, and whichever version it has where that is not certain.
func TestContract(t *testing.T) {
	type schema = rollout.Schema
	reads := func(min, max, writes, leaves int) schema {
		return schema{Name: "shop", Min: min, Max: max, Writes: writes, Leaves: leaves}
	}
	back := rollout.Hook{When: rollout.HookRollback}
	for _, c := range []struct {
		name        string
		kind        string
		data, least int // 0: not known
		current, to map[string]schema
		hooks       []rollout.Hook // of the new components
		refused     string
	}{
		{"it reads what is there", "deploy", 1, 0, map[string]schema{"web": reads(1, 2, 1, 0)}, map[string]schema{"web": reads(1, 2, 2, 0)}, nil, ""},
		{"it cannot read what is there", "deploy", 1, 0, nil, map[string]schema{"web": reads(2, 2, 2, 0)}, nil, "the data has version 1 and it reads 2 to 2"},
		{"its migration makes it readable", "deploy", 1, 0, nil, map[string]schema{"web": reads(2, 2, 2, 2)}, nil, ""},
		{"its migration is behind what is there", "deploy", 3, 0, nil, map[string]schema{"web": reads(2, 2, 2, 2)}, nil, "the data has version 3"},
		{"it may have either version", "deploy", 2, 1, nil, map[string]schema{"web": reads(2, 2, 2, 0)}, nil, "the data has version 1"},
		{"it reads either version", "deploy", 2, 1, nil, map[string]schema{"web": reads(1, 2, 2, 0)}, nil, ""},
		{"it migrates either version", "deploy", 2, 1, nil, map[string]schema{"web": reads(2, 2, 2, 2)}, nil, ""},
		{"the old one could not read it beside the new one", "deploy", 1, 0, map[string]schema{"web": reads(1, 1, 1, 0)}, map[string]schema{"web": reads(1, 2, 2, 0)}, nil,
			"it writes version 2 and the current release, which has to be able to come back, reads 1 to 1"},
		{"nor does a hook on rollback help, which runs when the old one serves again", "deploy", 1, 0, map[string]schema{"web": reads(1, 1, 1, 0)},
			map[string]schema{"web": reads(1, 2, 2, 2)}, []rollout.Hook{back}, "its migration leaves version 2"},
		{"another component of the old release shares the data", "deploy", 1, 0, map[string]schema{"api": reads(1, 1, 1, 0)}, map[string]schema{"web": reads(1, 2, 2, 0)}, nil,
			"it writes version 2 and the current release"},
		{"another component of the new release shares the data", "deploy", 1, 0, nil, map[string]schema{"api": reads(1, 1, 1, 0), "web": reads(1, 2, 2, 0)}, nil,
			"it writes version 2 and component api of the same release reads 1 to 1"},
		{"the migration of another component makes it readable", "deploy", 1, 0, nil, map[string]schema{"api": reads(2, 2, 2, 0), "web": reads(1, 2, 2, 2)}, nil, ""},
		{"a rollback need not be readable for the release that is left", "rollback", 2, 0, map[string]schema{"web": reads(2, 2, 2, 0)}, map[string]schema{"web": reads(1, 2, 1, 0)}, nil, ""},
		{"a rollback to what cannot read the data", "rollback", 2, 0, map[string]schema{"web": reads(2, 2, 2, 0)}, map[string]schema{"web": reads(1, 1, 1, 0)}, nil, "the data has version 2"},
	} {
		s := rollout.State{App: "shop", Env: "prod"}
		if c.data != 0 {
			s.Data = map[string]int{"shop": c.data}
		}
		if c.least != 0 {
			s.Least = map[string]int{"shop": c.least}
		}
		target := func(schemas map[string]schema, hooks []rollout.Hook) rollout.Target {
			to := rollout.Target{Strategy: rollout.Strategy{Kind: rollout.BlueGreen}}
			for _, name := range []string{"api", "web"} {
				if x, there := schemas[name]; there {
					to.Components = append(to.Components, rollout.Component{Name: name, Replicas: 1, Schemas: []schema{x}, Hooks: hooks})
				}
			}
			return to
		}
		if c.current != nil {
			current := target(c.current, nil)
			s.Current = &current
		}
		_, _, err := rollout.Begin(time.Unix(0, 0), s, rollout.Request{Kind: c.kind, To: target(c.to, c.hooks), Actor: "dana"})
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.refused != "" && (err == nil || !strings.Contains(fault.Of(err).What, c.refused)):
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
