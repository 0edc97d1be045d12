package store

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/record"
)

// A policy changes with its entry or not at all, the same one twice is no change, and
// what once judged can be read for ever.
func TestPolicies(t *testing.T) {
	s := open(t, t.TempDir())
	count := func() int {
		all, err := s.Entries(t.Context(), engine.Key{}, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	read := func() string {
		doc, err := s.Policy(t.Context(), production)
		if err != nil {
			t.Fatal(err)
		}
		return string(doc)
	}
	set := func(doc string, want bool) {
		t.Helper()
		var text []byte
		if doc != "" {
			text = []byte(doc)
		}
		if changed, err := s.SetPolicy(t.Context(), production, text, fact("policy.set")); err != nil || changed != want {
			t.Errorf("set %q: %v %v", doc, changed, err)
		}
	}
	if read() != "" {
		t.Error("there is a policy from the beginning")
	}
	set("first", true)
	set("first", false)
	set("second", true)
	if got := read(); got != "second" || count() != 2 {
		t.Errorf("policy %q with %d entries", got, count())
	}
	if _, err := s.SetPolicy(t.Context(), production, []byte("third"), record.Entry{}); err == nil {
		t.Error("a policy is set without an entry that can be")
	}
	if got := read(); got != "second" {
		t.Errorf("policy %q, whose entry was refused", got)
	}
	set("", true)
	set("", false)
	if read() != "" || count() != 3 {
		t.Errorf("policy %q with %d entries", read(), count())
	}
	if doc, err := s.PolicyNamed(t.Context(), digest.FromString("first")); err != nil || string(doc) != "first" {
		t.Errorf("the first policy reads %q (%v)", doc, err)
	}
	set("second", true)
	if _, err := s.writer.ExecContext(t.Context(), "UPDATE policies SET doc = (SELECT doc FROM policies WHERE digest = ?)", digest.FromString("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Policy(t.Context(), production); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a policy that was exchanged by hand: %v", err)
	}
}
