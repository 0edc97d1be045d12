package event_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ashlar-infra/ashlar/internal/event"
	"github.com/ashlar-infra/ashlar/internal/record"
)

var rewrite = flag.Bool("rewrite", false, "write what is told into testdata/story.txt, to be read and committed")

var began = time.Date(2026, 11, 24, 12, 0, 0, 5000, time.UTC)

// TestStory tells testdata/story.txt, and holds every event against the schemas of
// CloudEvents and CDEvents.
func TestStory(t *testing.T) {
	const file = "testdata/story.txt"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	var story event.Story
	ids, index := map[string]bool{}, int64(0)
	for line := range strings.SplitSeq(strings.TrimRight(string(want), "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&got, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		events, err := story.Tell("/ashlar/here", entry(t, index, line))
		if err != nil {
			t.Fatal(err)
		}
		index++
		for _, e := range events {
			if ids[e.ID] {
				t.Errorf("%s: the ID %s is of another event too", line, e.ID)
			}
			ids[e.ID] = true
			fmt.Fprintln(&got, "    "+seen(t, e))
		}
	}
	if got.String() != string(want) {
		if *rewrite {
			if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("-want +got; if it is better: go test ./internal/event -rewrite\n%s", cmp.Diff(string(want), got.String()))
	}
}

// entry reads "KIND ROLLOUT RELEASE key=value…".
func entry(t *testing.T, index int64, line string) record.Entry {
	t.Helper()
	words := strings.Fields(line)
	e := record.Entry{Index: index, Time: began, Actor: "ashlar", Kind: words[0], App: "shop", Env: "production", Data: map[string]string{}}
	var err error
	if e.Rollout, err = strconv.Atoi(words[1]); err != nil {
		t.Fatal(err)
	}
	for _, w := range words[2:] {
		name, value, ok := strings.Cut(w, "=")
		switch {
		case !ok:
			e.Release = digest.FromString(w)
		case name == "instance":
			e.Instance = value
		default:
			e.Data[name] = value
		}
	}
	return e
}

// seen checks an event and gives it in words.
func seen(t *testing.T, e event.Event) string {
	t.Helper()
	var c struct {
		ID, Source, Type, Subject, Time string
		Data                            struct {
			Context struct{ ID, Source, Type, Timestamp, ChainID string }
			Subject struct {
				ID      string
				Content json.RawMessage
			}
			CustomData record.Entry
		}
	}
	if err := json.Unmarshal(e.Body, &c); err != nil {
		t.Fatal(err)
	}
	check(t, "cloudevents", e.Body)
	cd, name := c.Data, "custom"
	if short, ok := strings.CutPrefix(e.Type, "dev.cdevents."); ok {
		parts := strings.Split(short, ".")
		name = parts[0] + parts[1]
	}
	var whole struct{ Data json.RawMessage }
	if err := json.Unmarshal(e.Body, &whole); err != nil {
		t.Fatal(err)
	}
	check(t, name, whole.Data)
	if c.ID != e.ID || cd.Context.ID != e.ID || c.Type != e.Type || cd.Context.Type != e.Type || c.Source != cd.Context.Source ||
		c.Subject != cd.Subject.ID || c.Time != cd.Context.Timestamp || c.Time != "2026-11-24T12:00:00.000005Z" || strings.Contains(c.ID, ".") {
		t.Errorf("the parts of %s disagree", e.Body)
	}
	content := string(cd.Subject.Content)
	for _, letter := range "abc" {
		content = strings.ReplaceAll(content, digest.FromString(string(letter)).Encoded(), string(letter))
	}
	subject := strings.ReplaceAll(c.Subject, digest.FromString("b").String(), "sha256:b")
	return fmt.Sprintf("%s  %s  %s", e.Type, subject, content)
}

var schemas = map[string]*jsonschema.Schema{}

// check holds JSON against a schema of testdata/schemas.
func check(t *testing.T, name string, text []byte) {
	t.Helper()
	if schemas[name] == nil {
		schemas[name] = compile(t, name)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := schemas[name].Validate(v); err != nil {
		t.Errorf("%s: %v\n%s", name, err, text)
	}
}

func compile(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/schemas", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	// Links are not used: any list will do.
	for url, resource := range map[string]any{name: doc, "https://cdevents.dev/0.5.1/schema/links/embeddedlinksarray": map[string]any{"type": "array"}} {
		if err := c.AddResource(url, resource); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSignature is the example of the libraries of Standard Webhooks.
func TestSignature(t *testing.T) {
	key, err := event.Key([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := event.Sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if key, err := event.Key([]byte("words of my own")); string(key) != "words of my own" || err != nil {
		t.Errorf("%q, %v", key, err)
	}
	for _, bad := range []string{"", "whsec_", "whsec_not base64"} {
		if key, err := event.Key([]byte(bad)); err == nil || strings.Contains(err.Error(), "not base64 after it") == (bad == "") || len(key) > 0 {
			t.Errorf("%q: %q, %v", bad, key, err)
		}
	}
}

func TestReceiver(t *testing.T) {
	for address, want := range map[string]bool{
		"https://example.org/hook?token=x": true, "http://localhost:1/": true, "http://127.0.0.9/": true, "http://[::1]:80/": true,
		"http://example.org/": false, "http://10.0.0.1/": false, "http://localhost.example.org/": false, "ftp://localhost/": false,
		"https://": false, "": false, "/hook": false, "https://a:b@example.org/": false, "https://example.org/#x": false, "http://%zz": false,
	} {
		if u, err := event.Receiver(address); (err == nil) != want || (u == nil) == want {
			t.Errorf("%q: %v, %v", address, u, err)
		}
	}
}

func FuzzStory(f *testing.F) {
	f.Add("rollout.begun", "deploy", "x", 1, "web-1")
	f.Add("a", "\xff", ".", -1, "")
	f.Fuzz(func(t *testing.T, kind, what, env string, rollout int, instance string) {
		e := record.Entry{Time: began, Actor: "a", Kind: kind, App: "shop", Env: env, Rollout: rollout, Instance: instance, Data: map[string]string{"kind": what}}
		if e.Validate() != nil || env == "" {
			return
		}
		var story event.Story
		events, err := story.Tell("/ashlar/here", e)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			check(t, "cloudevents", e.Body)
		}
	})
}
