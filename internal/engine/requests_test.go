package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestAddRelease(t *testing.T) {
	e := newWorld().engine()
	first := add(t, e, shop("1"))
	if again := add(t, e, shop("1")); again.Number != first.Number || first.Number != 1 {
		t.Errorf("the same release has the numbers %d and %d", first.Number, again.Number)
	}
	if second := add(t, e, shop("2")); second.Number != 2 {
		t.Errorf("the second release has number %d", second.Number)
	}
	bad := shop("3")
	bad.App = "No Such Name"
	_, err := e.AddRelease(t.Context(), midnight, "dana", bad)
	wantKind(t, err, fault.Invalid)
}

// TestRefusedDeploys: whatever is missing is found out before anything is touched,
// so that nothing is committed and a running release goes on.
func TestRefusedDeploys(t *testing.T) {
	w := newWorld()
	e := w.engine()
	live(t, e, "1")
	next := add(t, e, shop("2"))
	elsewhere, other := shop("3"), shop("4")
	elsewhere.Environments = map[string]release.Environment{"staging": elsewhere.Environments["prod"]}
	env := other.Environments["prod"]
	env.Platform = "moon"
	other.Environments["prod"] = env

	for name, c := range map[string]struct {
		d    digest.Digest
		fail string
		with error
		kind fault.Kind
		says string
	}{
		"a release that nobody knows":   {digest.FromString("nothing"), "", nil, fault.NotFound, "is not known"},
		"without this environment":      {add(t, e, elsewhere).Digest, "", nil, fault.NotFound, `no environment "prod"`},
		"on a platform nobody knows":    {add(t, e, other).Digest, "", nil, fault.Invalid, `platform "moon"`},
		"with an object that is gone":   {next.Digest, "check", fault.New(fault.Unavailable, "tree is gone").Mend("ashlar build"), fault.Unavailable, "component web of the release is not on hand: tree is gone"},
		"while the state is not read":   {next.Digest, "state", fault.New(fault.Unavailable, "disk full"), fault.Unavailable, "read the state of shop/prod: disk full"},
		"while the record is not there": {next.Digest, "commit", fault.New(fault.Unavailable, "disk full"), fault.Unavailable, "record the rollout: disk full"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.fail != "" {
				w.set(c.fail, c.with)
				defer w.set(c.fail, nil)
			}
			_, err := e.Deploy(t.Context(), midnight, "dana", key, c.d, engine.DeployOptions{})
			wantKind(t, err, c.kind)
			if !strings.Contains(fault.Of(err).Error(), c.says) {
				t.Errorf("it says %q, want %q", fault.Of(err), c.says)
			}
		})
	}
	if s := state(t, e); s.Rollout != nil || s.Rollouts != 1 {
		t.Errorf("after refusals: rollout %d, in flight %v", s.Rollouts, s.Rollout)
	}
}

// TestOneRolloutAtATime is I7.
func TestOneRolloutAtATime(t *testing.T) {
	e := newWorld().engine()
	live(t, e, "1")
	deploy(t, e, "2")
	third := add(t, e, shop("3"))
	_, err := e.Deploy(t.Context(), midnight, "dana", key, third.Digest, engine.DeployOptions{})
	wantKind(t, err, fault.Conflict)
	_, err = e.Down(t.Context(), midnight, "dana", key, "")
	wantKind(t, err, fault.Conflict)
	settle(t, e)
	if s := state(t, e); s.Current.Number != 2 || s.Rollouts != 2 {
		t.Errorf("release %d is live after %d rollouts", s.Current.Number, s.Rollouts)
	}
}

func TestRollback(t *testing.T) {
	w := newWorld()
	e := w.engine()
	back := func(ref string) error {
		t.Helper()
		_, err := e.Rollback(t.Context(), midnight, "dana", key, ref, engine.DeployOptions{Reason: "it hurts"})
		return err
	}
	wantKind(t, back(""), fault.NotFound)  // nothing was ever live
	wantKind(t, back("7"), fault.NotFound) // no such release
	first := live(t, e, "1")
	wantKind(t, back(""), fault.NotFound) // there is none before it
	live(t, e, "2")

	w.set("check", fault.New(fault.Unavailable, "tree is gone"))
	wantKind(t, back(""), fault.Unavailable)
	w.set("check", nil)

	if err := back(""); err != nil {
		t.Fatal(err)
	}
	if r := state(t, e).Rollout; r.Kind != rollout.KindRollback || r.Reason != "it hurts" || r.Actor != "dana" {
		t.Errorf("%s by %s because %q", r.Kind, r.Actor, r.Reason)
	}
	settle(t, e)
	if s := state(t, e); s.Current.Release != first.Digest || s.LastResult.Outcome != rollout.Live {
		t.Errorf("release %d is live, %+v", s.Current.Number, s.LastResult)
	}
	wantKind(t, back(""), fault.NotFound) // release 2 was gone back from
	if err := back("2"); err != nil {     // but it is there for who names it
		t.Error(err)
	}
}

func TestFindRelease(t *testing.T) {
	e := newWorld().engine(func(c *engine.Config) { c.Store = twins{c.Store} })
	for ref, want := range map[string]int{
		"1": 1, "#2": 2, "aaaaaa1": 1, "sha256:aaaaaa2": 2, "bbbbbb": 3,
		"aaaaaa1111111111111111111111111111111111111111111111111111111111": 1,
	} {
		if got, err := e.FindRelease(t.Context(), "shop", ref); err != nil || got.Number != want {
			t.Errorf("%q is release %d, %v; want %d", ref, got.Number, err, want)
		}
	}
	for ref, kind := range map[string]fault.Kind{
		"4": fault.NotFound, "": fault.NotFound, "bbbbb": fault.NotFound, "cccccc": fault.NotFound, "-1": fault.NotFound, "aaaaaa": fault.Invalid,
	} {
		got, err := e.FindRelease(t.Context(), "shop", ref)
		if err == nil {
			t.Errorf("%q is release %d", ref, got.Number)
			continue
		}
		wantKind(t, err, kind)
		if fault.Of(err).Fix == "" {
			t.Errorf("%q: %v says nothing of what to do", ref, err)
		}
	}
	if _, err := e.FindRelease(t.Context(), "broken", "1"); !errors.Is(err, errBroken) {
		t.Errorf("%v, want the store's error", err)
	}
}

// twins is a store whose digests begin alike.
type twins struct{ engine.Store }

func (twins) Releases(_ context.Context, app string) ([]engine.Stored, error) {
	if app == "broken" {
		return nil, errBroken
	}
	name := func(begin, fill string) digest.Digest {
		return digest.NewDigestFromEncoded(digest.SHA256, begin+strings.Repeat(fill, 64-len(begin)))
	}
	return []engine.Stored{{Number: 1, Digest: name("aaaaaa", "1")}, {Number: 2, Digest: name("aaaaaa", "2")}, {Number: 3, Digest: name("bbbbbb", "b")}}, nil
}

func TestDown(t *testing.T) {
	w := newWorld()
	e := w.engine()
	down := func() error {
		t.Helper()
		_, err := e.Down(t.Context(), midnight, "dana", key, "for the night")
		return err
	}
	wantKind(t, down(), fault.NotFound)
	first := live(t, e, "1")
	if err := down(); err != nil {
		t.Fatal(err)
	}
	settle(t, e)
	s := state(t, e)
	if len(w.units) != 0 || len(w.table[key].Services) != 0 || w.table[key].Listen != "" || s.Rollout != nil {
		t.Errorf("%d instances run, the routes are %s on %q", len(w.units), w.table[key], w.table[key].Listen)
	}
	wantKind(t, down(), fault.NotFound)
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, first.Digest, engine.DeployOptions{}); err != nil {
		t.Fatal(err)
	}
	settle(t, e)
	if len(w.units) != 2 || len(w.table[key].Services) != 1 {
		t.Errorf("up again: %d instances run, the routes are %s", len(w.units), w.table[key])
	}
}

// TestStatus: what does not answer is a problem that is told, not an error.
func TestStatus(t *testing.T) {
	w := newWorld()
	e := w.engine()
	_, err := e.Status(t.Context(), midnight, key)
	wantKind(t, err, fault.NotFound)
	deploy(t, e, "1")
	status, err := e.Status(t.Context(), midnight, key)
	if err != nil || len(status.Problems) > 0 || len(status.Waiting) == 0 || status.State.Rollout == nil {
		t.Errorf("%+v, %v", status, err)
	}
	w.set("list", errBroken)
	w.set("status", errBroken)
	if status, err = e.Status(t.Context(), midnight, key); err != nil || len(status.Problems) != 2 {
		t.Errorf("%q, %v", status.Problems, err)
	}
	if calls := w.took(); len(calls) != 3 { // the commit of the deploy, and a look each
		t.Errorf("looking did %q", calls)
	}
}
