package router

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What the router reads in a hurry it reads from router.json, with package json, when it
// is started again: the same table.
func TestReadAsAfterARestart(t *testing.T) {
	for _, backends := range []string{
		`null`, `[]`, `[{}]`, `[{"id":"a","address":"[::1]:1","weight":100,"release":"r"},{"weight":0,"id":"\u0061\"\\b}","address":"h:2"}]`,
		` [ {"id":"a" , "new":[{"backends":[1,{}]}], "weight":-3} ]`, `7`, `{}`, `[null]`, `[{"weight":1.5}]`, `[{"weight":"1"}]`,
		`[{"weight":01}]`, `[{"weight":99999999999999999999}]`, `[{"id":"a"},]`, `[{"id":"a"}`, `[]] x`, `[{"id":true}]`, `[{'id':1}]`, `"a`,
	} {
		text := []byte(`{"generation":9,"listen":":1","services":[{"name":"a","path":"/","hold":5,"backends":` + backends + `},{"name":"b"}]}`)
		got, err := decodeTable(text)
		var want rollout.Table
		if plain := json.Unmarshal(text, &want); (plain == nil) != (err == nil) {
			t.Errorf("%s: %v, package json says %v", backends, err, plain)
		}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Errorf("%s: %s", backends, diff)
		}
	}
}
