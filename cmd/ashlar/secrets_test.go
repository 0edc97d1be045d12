package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/api"
	"github.com/ashlar-infra/ashlar/internal/cli"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
	"github.com/ashlar-infra/ashlar/internal/trust"
)

const secretYAML = `
app: shop
components:
  web:
    build: [{files: {from: run, to: /srv/run, mode: "0755"}}]
    run: {command: [/srv/run], secrets: {password: {env: PASSWORD}}}
environments:
  production: {events: [{url: "http://127.0.0.1:9/", secret: webhook-key}]}
  staging: {}
`

// marker is a value that must be nowhere but in the mouth of who set it.
const marker = "eiche-grau-meister-17"

// shop is a server over real stores, to which the real commands talk. Nothing runs.
type shop struct {
	*yard
	secrets *secrets
	said    said // all that commands and the server said
}

// said is text that several write.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func newShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{yard: newYard(t)}
	for name, text := range map[string]string{"ashlar.yaml": secretYAML, "run": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(s.source, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.open(t)
	log := slog.New(slog.NewTextHandler(&s.said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	notary, err := openNotary(t.Context(), cli.ServeRequest{Dir: s.dir}, "host", s.store, log)
	if err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(api.Config{
		Engine: engine.New(engine.Config{Store: s.store, Artifacts: s.artifacts, Log: log}), Store: s.store, Log: log, Now: time.Now, Host: "host",
		Hold: s.objects.Share, Secrets: s.secrets, Notary: notary, Ahead: func(engine.Key, *release.Release) {},
		AppendStatements: s.store.AppendStatements, Version: func() api.Version { return api.Version{Version: version, Dir: s.dir} },
	})
	run := cli.RunDir(s.dir)
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	socket, err := api.Listen(run)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, socket); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// open opens the secrets as a server that starts does.
func (s *shop) open(t testing.TB) {
	t.Helper()
	var err error
	if s.secrets, err = openSecrets(t.Context(), s.dir, "", s.store); err != nil {
		t.Fatal(err)
	}
	s.secrets.garbage = s.garbage
	s.garbage.secrets = s.secrets
	s.artifacts.secrets = s.secrets.holds
}

// ashlar runs a command and gives its exit status and what it said.
func (s *shop) ashlar(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	args = append(args, "--dir", s.dir, "--file", filepath.Join(s.source, "ashlar.yaml"))
	status := cli.Run(t.Context(), args, strings.NewReader(stdin), &out, &out, cli.Parts{Build: buildRelease, Keys: cli.KeyParts{OfRole: nobody}})
	fmt.Fprint(&s.said, out.String())
	return status, out.String()
}

// nobody has a key.
func nobody(string, trust.Role) (string, bool, error) { return "", false, nil }

func (s *shop) must(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	status, out := s.ashlar(t, stdin, args...)
	if status != 0 {
		t.Fatalf("%q ended with %d:\n%s", args, status, out)
	}
	return out
}

// release builds and stores a release as a deploy does.
func (s *shop) release(t *testing.T) release.Release {
	t.Helper()
	var built cli.Built
	var out bytes.Buffer
	parts := cli.Parts{Build: func(ctx context.Context, q cli.BuildRequest) (_ cli.Built, err error) {
		built, err = buildRelease(ctx, q)
		return built, err
	}}
	if status := cli.Run(t.Context(), []string{"build", "--dir", s.dir, "--file", filepath.Join(s.source, "ashlar.yaml")}, nil, &out, &out, parts); status != 0 {
		t.Fatalf("build ended with %d:\n%s", status, out.String())
	}
	fmt.Fprint(&s.said, out.String())
	doc, err := built.Release.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Dial(cli.RunDir(s.dir), s.dir).AddRelease(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
	return built.Release
}

// TestSecrets is the life of a secret: missing, set, named by a release, rotated without a
// build, kept while it can be rolled back to, and removed. Its value stays where it is.
func TestSecrets(t *testing.T) {
	s := newShop(t)
	status, out := s.ashlar(t, "", "deploy", "production", "--yes")
	for _, want := range []string{
		"secret password of shop/production was never set", "ashlar secret set production password",
		"secret webhook-key of shop/production",
	} {
		if status != 3 || !strings.Contains(out, want) {
			t.Errorf("without secrets a deploy ends with %d and does not say %q:\n%s", status, want, out)
		}
	}
	if strings.Contains(out, "staging") {
		t.Errorf("a deploy to production asks for what staging needs, which may be another server's:\n%s", out)
	}
	bare := s.release(t) // building alone is possible
	err := s.artifacts.Check(t.Context(), bare.Environments["staging"].Components["web"].Spec)
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused || !strings.Contains(f.What, "secret password was never set") {
		t.Errorf("a release whose secret was never set: %v", err)
	}
	if out := s.must(t, "", "secret", "ls", "production"); !strings.Contains(out, "production has no secrets") {
		t.Errorf("ls of nothing: %s", out)
	}
	s.must(t, marker+"\n", "secret", "set", "production", "password")
	s.must(t, marker, "secret", "set", "production", "webhook-key")
	s.must(t, "other", "secret", "set", "staging", "password", "-o", "json")
	one := s.release(t)
	named := one.Environments["production"].Components["web"].Spec.Secrets[0]
	value, err := s.secrets.values.Get(t.Context(), engine.Key{App: "shop", Env: "production"}, named)
	if err != nil || string(value) != marker || named.Version != 1 {
		t.Errorf("release 2 names %+v, which is %q, %v", named, value, err)
	}
	if status, out := s.ashlar(t, "", "secret", "rm", "production", "password", "--yes"); status != 5 || !strings.Contains(out, "needed by release 2") {
		t.Errorf("a version that release 2 needs: %d\n%s", status, out)
	}

	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(marker+"-2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.must(t, "", "secret", "set", "production", "password", "--from-file", file)
	two := s.release(t)
	changes := release.Diff(&one, &two, "production")
	if c := changes[0]; c.Kind != release.Replaced || len(c.Reasons) != 1 || !strings.HasPrefix(c.Reasons[0].String(), "secret password: version 1") {
		t.Errorf("rotating changes %+v", c)
	}
	if c := release.Diff(&one, &two, "staging")[0]; c.Kind != release.Unchanged {
		t.Errorf("rotating in production changes staging: %+v", c)
	}
	if err := s.artifacts.Check(t.Context(), one.Environments["production"].Components["web"].Spec); err != nil {
		t.Errorf("release 2 cannot be rolled back to: %v", err)
	}
	if out := s.must(t, "", "secret", "ls", "production"); strings.Count(out, "password") != 2 {
		t.Errorf("ls: %s", out)
	}
	s.must(t, "", "secret", "rm", "production", "password", "1", "--yes") // no environment keeps release 2
	err = s.artifacts.Check(t.Context(), one.Environments["production"].Components["web"].Spec)
	if f := fault.Of(err); f == nil || f.Kind != fault.Refused || !strings.Contains(f.What, "version 1 of secret password") {
		t.Errorf("release 2 without its secret: %v", err)
	}
	for _, args := range [][]string{{"password", "2"}, {"webhook-key"}} {
		if status, out := s.ashlar(t, "", append([]string{"secret", "rm", "production", "--yes"}, args...)...); status != 5 || !strings.Contains(out, "needed by release 3") {
			t.Errorf("rm %q: %d\n%s", args, status, out)
		}
	}
	s.nowhere(t, marker)
	s.nowhere(t, base64.StdEncoding.EncodeToString([]byte(marker))[:24])
	want := []string{"release.added", "secret.set", "secret.set", "secret.set", "release.added", "secret.set", "release.added", "secret.removed"}
	if diff := cmp.Diff(want, s.kinds(t)); diff != "" {
		t.Errorf("the record (-want +got):\n%s", diff)
	}
}

// nowhere searches everything on disk, in the record and in what was said.
func (s *shop) nowhere(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(s.said.String(), text) {
		t.Errorf("%q was said:\n%s", text, s.said.String())
	}
	files := 0
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			t.Errorf("%q is in %s", text, path)
		}
		return err
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
	entries, err := s.store.Entries(t.Context(), engine.Key{}, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		leaf, err := e.Leaf()
		if err != nil || bytes.Contains(leaf, []byte(text)) {
			t.Errorf("%q is in the record, or %v: %s", text, err, leaf)
		}
	}
}

// TestSecretWithNUL: a value that no variable can hold is refused when a release that
// wants it in one is made, and when it is set for such a release.
func TestSecretWithNUL(t *testing.T) {
	s := newShop(t)
	s.must(t, "key", "secret", "set", "production", "webhook-key")
	s.must(t, marker+"\x00", "secret", "set", "production", "password")
	status, out := s.ashlar(t, "", "deploy", "production", "--yes")
	if want := "version 1 of secret password of shop/production has a NUL byte, which the variable PASSWORD cannot hold"; status == 0 || !strings.Contains(out, want) {
		t.Errorf("deploy: %d\n%s", status, out)
	}
	s.must(t, "plain", "secret", "set", "production", "password")
	s.live(t, "production", s.release(t))
	status, out = s.ashlar(t, marker+"\x00", "secret", "set", "production", "password")
	if want := "has a NUL byte, and instances have it in the variable PASSWORD"; status != 5 || !strings.Contains(out, want) {
		t.Errorf("set: %d\n%s", status, out)
	}
	s.must(t, "a\x00b", "secret", "set", "production", "webhook-key")
	s.nowhere(t, marker)
}

// TestGCRemovesOldSecrets: a version that no kept release names goes, unless it is the
// newest.
func TestGCRemovesOldSecrets(t *testing.T) {
	s := newShop(t)
	for range 3 {
		s.must(t, marker, "secret", "set", "production", "password")
	}
	s.live(t, "production", s.release(t)) // it names version 3
	for range 2 {
		s.must(t, marker, "secret", "set", "production", "password")
	}
	s.must(t, marker, "secret", "set", "staging", "other")
	for _, dry := range []bool{true, false} {
		report, err := s.garbage.collect(t.Context(), "dana", api.GCRequest{DryRun: dry})
		if err != nil || report.Secrets != 3 {
			t.Errorf("%+v, %v", report, err)
		}
	}
	var left []string
	all, err := s.secrets.values.All()
	for _, v := range all {
		left = append(left, fmt.Sprint(v.Key.Env, " ", v.Name, " ", v.Number))
	}
	if want := []string{"production password 3", "production password 5", "staging other 1"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("%q are left, %v", left, err)
	}
	if n := strings.Count(strings.Join(s.kinds(t), " "), "secret.removed"); n != 3 {
		t.Errorf("%d removals in the record", n)
	}
}

// live has a release serve in an environment, as far as the state tells.
func (s *shop) live(t *testing.T, env string, rel release.Release) {
	t.Helper()
	d, err := rel.Digest()
	if err != nil {
		t.Fatal(err)
	}
	key := engine.Key{App: rel.App, Env: env}
	_, version, err := s.store.State(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	state := rollout.State{App: key.App, Env: key.Env, Current: &rollout.Target{Release: d}, KnownGood: []digest.Digest{d}}
	entry := record.Entry{Time: time.Now().UTC(), Actor: "dana", Kind: "release.live", App: key.App, Env: key.Env, Release: d}
	if _, err := s.store.Commit(t.Context(), key, version, state, []record.Entry{entry}); err != nil {
		t.Fatal(err)
	}
}

// TestSecretsRefused holds what a person who is wrong meets.
func TestSecretsRefused(t *testing.T) {
	s := newShop(t)
	s.must(t, "x", "secret", "set", "staging", "password")
	for name, c := range map[string]struct {
		stdin  string
		args   []string
		status int
		says   string
	}{
		"an empty value":    {"", []string{"set", "staging", "password"}, 2, "has 0 bytes"},
		"only a newline":    {"\n", []string{"set", "staging", "password"}, 2, "has 0 bytes"},
		"a long value":      {strings.Repeat("x", 65537), []string{"set", "staging", "password"}, 2, "1 to 65536"},
		"a path for a name": {"x", []string{"set", "staging", "../password"}, 2, `"../password" is not the name of a secret`},
		"no file":           {"", []string{"set", "staging", "password", "--from-file", "/nowhere"}, 2, "cannot read the value"},
		"no environment":    {"x", []string{"set", "password"}, 2, "none is named"},
		"the value as word": {"", []string{"set", "staging", "password", marker}, 2, "accepts between 1 and 2 arg"},
		"rm of nothing":     {"", []string{"rm", "staging", "nothing", "--yes"}, 3, "has no such version"},
		"rm of no version":  {"", []string{"rm", "staging", "password", "two", "--yes"}, 2, `"two" is no version`},
		"rm unasked":        {"", []string{"rm", "staging", "password"}, 5, "nobody is there to agree"},
	} {
		status, out := s.ashlar(t, c.stdin, append([]string{"secret"}, c.args...)...)
		if status != c.status || !strings.Contains(out, c.says) || strings.Contains(out, marker) {
			t.Errorf("%s: status %d, want %d and %q:\n%s", name, status, c.status, c.says, out)
		}
	}
	unlock, err := s.objects.Share(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if status, out := s.ashlar(t, "", "secret", "rm", "staging", "password", "--yes"); status != 4 {
		t.Errorf("rm beside a deploy: %d\n%s", status, out)
	}
}

// TestSecretsAfterACrash holds that what the record has is seen, and what it has not is gone.
func TestSecretsAfterACrash(t *testing.T) {
	s := newShop(t)
	key := engine.Key{App: "shop", Env: "production"}
	recorded, err := s.secrets.values.Seal(key, "password", []byte(marker))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Append(t.Context(), []record.Entry{secretEntry(secretSet, "root", recorded)}); err != nil {
		t.Fatal(err)
	}
	unrecorded, err := s.secrets.values.Seal(key, "password", []byte("never answered"))
	if err != nil {
		t.Fatal(err)
	}
	s.open(t)
	list, err := s.secrets.List(t.Context(), "shop", "production", false)
	if err != nil || len(list) != 1 || list[0].Sealed != recorded.Sealed {
		t.Errorf("after the crash there is %+v, %v; want version 1 and not %s", list, err, unrecorded.Sealed)
	}
	if pending, err := s.secrets.values.Pending(); err != nil || len(pending) > 0 {
		t.Errorf("still pending: %v, %v", pending, err)
	}
}
