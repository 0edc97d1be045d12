package build_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/build"
	"github.com/ashlar-infra/ashlar/internal/debian"
	"github.com/ashlar-infra/ashlar/internal/ledger"
	"github.com/ashlar-infra/ashlar/internal/release"
)

const minimisedRedis = `app: mini
components:
  redis:
    build:
      - debian:
          suite: bookworm
          packages: [redis-server]
          minimise: {keep: [/usr/bin/redis-cli], test: [/usr/bin/redis-server, --version]}
    run: {command: [/usr/bin/redis-server], user: redis}
environments: {production: {}}
`

// Of the closure of redis-server, from the host's own archive, what it is linked with
// remains, explained as before; the same twice; the bill of materials lists what is left.
func TestMinimisedFromTheArchive(t *testing.T) {
	p := newProject(t, map[string]string{"ashlar.yaml": minimisedRedis})
	p.b.Fetcher, p.b.Now = debian.NewHTTP(), nil
	spec := p.mustRelease().Environments["production"].Components["redis"]
	again := newProjectAt(t, t.TempDir(), t.TempDir(), map[string]string{"ashlar.yaml": minimisedRedis})
	lock, err := build.ReadLockFile(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Write(again.dir); err != nil {
		t.Fatal(err)
	}
	again.b.Fetcher, again.b.Now = debian.NewHTTP(), nil
	if other := again.mustRelease().Environments["production"].Components["redis"]; other.Spec.Artifact != spec.Spec.Artifact || other.Ledger != spec.Ledger {
		t.Errorf("two builds: %s and %s", spec.Spec.Artifact, other.Spec.Artifact)
	}
	book, err := ledger.Read(p.b.Objects, spec.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(book.Rules(), func(o ledger.Origin) bool { return o.Name == ledger.RuleMinimise }) {
		t.Error("the ledger does not say that the closure was minimised")
	}
	for p, want := range map[string]bool{"usr/bin/redis-server": true, "usr/bin/redis-cli": true, "etc/passwd": true, "usr/bin/perl": false, "usr/lib/x86_64-linux-gnu/libc.so.6": true} {
		if _, ok := book.Lookup(p); ok != want {
			t.Errorf("/%s remains: %v", p, ok)
		}
	}
	if n := len(book.Entries); n > 400 {
		t.Errorf("%d entries remain", n)
	}
	bill, err := ledger.SPDX(book)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(bill), "pkg:deb/debian/libc6@") || strings.Contains(string(bill), "pkg:deb/debian/adduser@") {
		t.Error("the bill of materials does not list what remains")
	}
	if n := strings.Count(string(bill), "pkg:deb/"); n > 30 {
		t.Errorf("it lists %d packages", n)
	} else {
		t.Logf("%d packages, %d entries", n, len(book.Entries))
	}
	def, err := p.define()
	if err != nil {
		t.Fatal(err)
	}
	trials, err := build.Trials(p.b.Objects, def, map[string]release.Spec{"redis": spec.Spec})
	if err != nil || len(trials) != 1 {
		t.Fatalf("%v, %v", trials, err)
	}
	if err := trials[0].Passed(p.b.Objects); err != nil {
		t.Fatal(err)
	}
	if trials, err = build.Trials(p.b.Objects, def, map[string]release.Spec{"redis": spec.Spec}); err != nil || len(trials) != 0 {
		t.Errorf("a test that has passed is run again: %v, %v", trials, err)
	}
}
