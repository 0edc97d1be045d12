package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestCommitThenActTableFirst is the order that everything else rests on: first the
// record, then the routes, alone, then the instances.
func TestCommitThenActTableFirst(t *testing.T) {
	w := newWorld()
	e := w.engine(func(c *engine.Config) { c.Parallel = 1 })
	deploy(t, e, "1")
	w.took()
	if _, err := e.Tick(t.Context(), midnight, key); err != nil {
		t.Fatal(err)
	}
	want := []string{"list shop/prod", "commit", "route #1 web=[]", "start shop-prod-web-1", "start shop-prod-web-2"}
	if diff := cmp.Diff(want, w.took()); diff != "" {
		t.Errorf("-want +got: %s", diff)
	}
}

// TestNothingOnHalfAPicture: when a part of the outside does not answer, nothing is
// decided, nothing is written and nothing is done.
func TestNothingOnHalfAPicture(t *testing.T) {
	for _, part := range []string{"list", "status", "state"} {
		t.Run(part, func(t *testing.T) {
			w := newWorld()
			e := w.engine(func(c *engine.Config) { c.Parallel = 1 })
			deploy(t, e, "1")
			w.took()
			w.set(part, errBroken)
			ticked, err := e.Tick(t.Context(), midnight, key)
			if !errors.Is(err, errBroken) || ticked.Busy || !ticked.Wake.IsZero() {
				t.Errorf("%+v, %v", ticked, err)
			}
			if calls := w.took(); slices.ContainsFunc(calls, func(c string) bool { return !strings.HasPrefix(c, "list") }) {
				t.Errorf("it did %q", calls)
			}
			w.set(part, nil)
			settle(t, e)
			if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.Live {
				t.Errorf("it did not go on afterwards: %+v", s.LastResult)
			}
		})
	}
}

// TestNothingDoneWithoutACommit: a decision that is not in the record is not acted
// upon, whether somebody else was faster or the store has failed.
func TestNothingDoneWithoutACommit(t *testing.T) {
	for _, cause := range []error{fmt.Errorf("environment shop/prod: %w", rollout.ErrStale), errBroken, errLost} {
		t.Run(cause.Error(), func(t *testing.T) {
			w := newWorld()
			e := w.engine()
			deploy(t, e, "1")
			w.took()
			w.set("commit", cause)
			if _, err := e.Tick(t.Context(), midnight, key); !errors.Is(err, cause) {
				t.Errorf("%v, want %v", err, cause)
			}
			if diff := cmp.Diff([]string{"list shop/prod", "commit"}, w.took()); diff != "" {
				t.Errorf("-want +got: %s", diff)
			}
			w.set("commit", nil)
			settle(t, e)
			if s := state(t, e); s.LastResult == nil || s.LastResult.Outcome != rollout.Live || s.Ordered != 2 {
				t.Errorf("it did not go on afterwards: %d ordered, %+v", s.Ordered, s.LastResult)
			}
		})
	}
}

// TestTwoEngines: two servers on one store do no harm; the slower gets ErrStale.
func TestTwoEngines(t *testing.T) {
	w := newWorld()
	first := w.engine()
	deploy(t, first, "1")
	second := w.engine(func(c *engine.Config) {
		c.Store = slower{c.Store, func() { _, _ = first.Tick(t.Context(), midnight, key) }}
	})
	w.took()
	if _, err := second.Tick(t.Context(), midnight, key); !errors.Is(err, rollout.ErrStale) {
		t.Fatalf("%v, want ErrStale", err)
	}
	if s := state(t, first); s.Ordered != 2 || len(w.units) != 2 {
		t.Errorf("%d were ordered and %d run", s.Ordered, len(w.units))
	}
	settle(t, first)
}

// slower lets something happen between reading and committing.
type slower struct {
	engine.Store
	meanwhile func()
}

func (s slower) State(ctx context.Context, env engine.Key) (rollout.State, int64, error) {
	state, version, err := s.Store.State(ctx, env)
	s.meanwhile()
	return state, version, err
}

// TestStartRefused: what the platform says is counted, kept in words, and ends the
// rollout the third time; a start that fails is no reason to forget the others.
func TestStartRefused(t *testing.T) {
	w := newWorld()
	e := w.engine()
	deploy(t, e, "1")
	w.set("start shop-prod-web-2", fault.New(fault.Invalid, "no such command: /web").Mend("build it"))
	now := midnight
	for range 10 {
		if state(t, e).Rollout == nil {
			break
		}
		ticked, err := e.Tick(t.Context(), now, key)
		switch {
		case err != nil:
			now = now.Add(time.Second)
		case !ticked.Wake.IsZero():
			now = ticked.Wake
		}
	}
	s := state(t, e)
	if s.LastResult == nil || s.LastResult.Outcome != rollout.PutBack || !strings.Contains(s.LastResult.Failure.What, "no such command: /web") {
		t.Fatalf("%+v", s.LastResult)
	}
	starts := map[string]int{}
	for _, c := range w.took() {
		starts[c]++
	}
	if starts["start shop-prod-web-1"] != 1 || starts["start shop-prod-web-2"] != 3 || len(w.units) != 0 {
		t.Errorf("web-1 was started %d times, web-2 %d times, %d are left", starts["start shop-prod-web-1"], starts["start shop-prod-web-2"], len(w.units))
	}
}

// TestRouterSaysNo: a refusal for good puts back; no answer is asked again.
func TestRouterSaysNo(t *testing.T) {
	for _, c := range []struct {
		err     error
		outcome rollout.Outcome
	}{
		{fault.New(fault.Conflict, "127.0.0.1:80 is in use"), rollout.PutBack},
		{fault.New(fault.Invalid, "no such address"), rollout.PutBack},
		{fault.New(fault.Refused, "not yours"), rollout.PutBack},
		{fault.New(fault.Unavailable, "the router does not answer"), rollout.Live},
		{errBroken, rollout.Live},
	} {
		t.Run(c.err.Error(), func(t *testing.T) {
			w := newWorld()
			e := w.engine()
			live(t, e, "1")
			deploy(t, e, "2")
			w.set("route #3", c.err) // of the switch
			for range 10 {
				_, _ = e.Tick(t.Context(), midnight, key)
			}
			w.set("route #3", nil)
			settle(t, e)
			s := state(t, e)
			if s.LastResult.Outcome != c.outcome || s.Rollout != nil {
				t.Fatalf("it ended %s: %+v", s.LastResult.Outcome, s.LastResult.Failure)
			}
			if c.outcome == rollout.PutBack && !strings.Contains(s.LastResult.Failure.What, c.err.Error()) {
				t.Errorf("the reason is %q", s.LastResult.Failure.What)
			}
		})
	}
}

// TestEntriesTellTheStory: each event is an entry with who, where and which rollout,
// the ones that end a rollout included.
func TestEntriesTellTheStory(t *testing.T) {
	w := newWorld()
	e := w.engine()
	live(t, e, "1")
	entries, err := e.Store.Entries(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, entry := range entries {
		kinds[entry.Kind]++
		if entry.Rollout != 1 || !entry.Time.Equal(midnight) {
			t.Errorf("%s belongs to rollout %d at %s", entry.Kind, entry.Rollout, entry.Time)
		}
		if want := map[bool]string{true: "dana", false: engine.Actor}[entry.Kind == "rollout.begun"]; entry.Actor != want {
			t.Errorf("%s is by %s", entry.Kind, entry.Actor)
		}
	}
	for kind, want := range map[string]int{"rollout.begun": 1, "instance.ordered": 2, "instance.ready": 2, "release.live": 1, "rollout.live": 1} {
		if kinds[kind] != want {
			t.Errorf("%d entries of kind %s, want %d", kinds[kind], kind, want)
		}
	}
}

func TestTickOfWhatIsNotThere(t *testing.T) {
	w := newWorld()
	if ticked, err := w.engine().Tick(t.Context(), midnight, key); err != nil || ticked.Busy || len(w.took()) > 0 {
		t.Errorf("%+v, %v", ticked, err)
	}
	live(t, w.engine(), "1")
	_, err := w.engine(func(c *engine.Config) { c.Platforms = nil }).Tick(t.Context(), midnight, key)
	wantKind(t, err, fault.Invalid)
}

// TestAnotherProcessGoesOn: nothing is lost when a server is replaced between any
// two steps.
func TestAnotherProcessGoesOn(t *testing.T) {
	w := newWorld()
	deploy(t, w.engine(), "1")
	for range 20 {
		if _, err := w.engine().Tick(t.Context(), midnight, key); err != nil {
			t.Fatal(err)
		}
	}
	if s := state(t, w.engine()); s.LastResult == nil || s.LastResult.Outcome != rollout.Live || s.Ordered != 2 {
		t.Errorf("%d ordered, %+v", s.Ordered, s.LastResult)
	}
}
