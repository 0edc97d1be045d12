package router

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// What a server sends is read the fast way, with the result that package json has.
func TestBackendsAreReadTheFastWay(t *testing.T) {
	want := many(3)[0].Services[0].Backends
	want[1].Release, want[2].Weight, want[2].Address = "", 0, "[::1]:80"
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, rest, plain := plainList(append(text, "!"...))
	if diff := cmp.Diff(want, got); !plain || diff != "" || string(rest) != "!" {
		t.Errorf("plain %v, then %q: %s", plain, rest, diff)
	}
}

// FuzzRead: a table is read as package json reads it.
func FuzzRead(f *testing.F) {
	for _, backends := range []string{
		`[]`, `null`, `7`, `"lifted0"`, `[{}]`, `[{"id":"a","address":"h:1","weight":1},{"id":"b","address":"h:2","weight":20,"release":"r"}]`,
		`[{"id":"a","address":"h:1","weight":1,"release":"}"}]`, `[{"id":"a\u0062","address":"h:1","weight":1}]`, `[{"weight":1,"id":"a"}]`,
		`[ {"id":"a","address":"h:1","weight":1} ]`, `[{"id":"a","address":"h:1","weight":1} , {"id":"b"}]`, `[{"id":"a","address":"h:1","weight":1.0}]`,
		`[{"id":"a","address":"h:1","weight":01}]`, `[{"id":"a","address":"h:1","weight":+1}]`, `[{"id":"a","address":"h:1","weight":-0}]`,
		`[{"id":"a","address":"h:1","weight":99999999999999999999}]`, `[{"id":"a","address":"h:1","weight":-3,"release":""}]`,
		`[{"id":"a","address":"h:1","weight":1},null]`, `[{"id":"a","address":"h:1","weight":1},]`, `[{"id":"a","address":"h:1","weight":1}`,
		`[{"id":"a","address":"h:1","weight":1,"backends":[{"id":"x","address":"h:1","weight":1}]}]`, "[{\"id\":\"\xff\",\"address\":\"h:1\",\"weight\":1}]",
		`[{"id":"a","address":"h:1","weight":1,"release":"r","release":"s"}]`,
	} {
		f.Add([]byte(`{"generation":1,"listen":":1","services":[{"name":"a","path":"/","backends":` + backends + `},{"name":"b","backends":[{"id":"c","address":"h:3","weight":1}]}]}`))
	}
	list := `[{"id":"a","address":"h:1","weight":1}]`
	f.Add([]byte(`{"backends":` + list + `,"new":{"backends":` + list + `},"services":[{"backends":` + list + `,"name":"x,\"backends\":` + `"}]}`))
	f.Add([]byte(`{"listen":"a,"backends":` + list + `}`))
	f.Add([]byte(`{"listen":"a\"backends":` + list + `}`))
	f.Add([]byte(`{"services":[{"backends":` + list + ` x}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if json.Valid(text) && twice(json.NewDecoder(bytes.NewReader(text))) {
			return // package json adds to what the key had before
		}
		got, err := decodeTable(text)
		var want rollout.Table
		if plain := json.Unmarshal(text, &want); (plain == nil) != (err == nil) {
			t.Fatalf("read with %v, package json with %v", err, plain)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err == nil && diff != "" {
			t.Errorf("package json reads another table: %s", diff)
		}
	})
}

// twice says whether a key comes twice in an object of the value.
func twice(in *json.Decoder) bool {
	open, err := in.Token()
	if err != nil || open != json.Delim('{') && open != json.Delim('[') {
		return false
	}
	keys := map[string]bool{}
	for in.More() {
		if open == json.Delim('{') {
			key, err := in.Token()
			name, _ := key.(string)
			name = strings.ToLower(strings.ToUpper(name))
			if err != nil || keys[name] {
				return err == nil
			}
			keys[name] = true
		}
		if twice(in) {
			return true
		}
	}
	_, _ = in.Token()
	return false
}
