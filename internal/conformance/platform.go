// This file's suite holds every platform, the simulator's included, to the
// contract of engine.Platform.

package conformance

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	spec "github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Behaviour is what a program of the suite does.
type Behaviour string

// The behaviours that a platform's world must be able to run. Serves, Sick and
// Stubborn have a health check, three failures of which in a row count.
const (
	Serves   Behaviour = "serves"   // its probe succeeds, it ends when asked to
	Plain    Behaviour = "plain"    // has neither port nor health check, it ends when asked to
	Sick     Behaviour = "sick"     // its probe never succeeds
	Exits    Behaviour = "exits"    // prints Farewell and ends at once with status 3
	Stubborn Behaviour = "stubborn" // serves and does not end when asked to; its grace is at most a second
	Missing  Behaviour = "missing"  // cannot be started: its command is not there
	Holds    Behaviour = "holds"    // as Plain, with an exclusive volume, the same one each time
	Shares   Behaviour = "shares"   // as Plain, with a shared volume, the same one each time
)

// Farewell is the line that Exits prints.
const Farewell = "farewell"

// PlatformWorld is a platform with what the suite needs to use it.
type PlatformWorld struct {
	Platform engine.Platform
	Spec     func(Behaviour) spec.Spec
	Reopen   func(t *testing.T) engine.Platform // the observer ends; a new one takes over what runs
	Tick     func()                             // called before each look at the world, for one with a clock of its own; nil: real time
}

// The environments of the suite.
var (
	suiteEnv = rollout.Key{App: "conformance", Env: "suite"}
	otherEnv = rollout.Key{App: "conformance", Env: "other"}
)

// Platform holds a platform to its contract. Every subtest gets a world of its own.
func Platform(t *testing.T, newWorld func(t *testing.T) PlatformWorld) {
	tests := []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"an instance becomes ready and is listed in its environment only", testReady},
		{"without a health check it is ready as soon as it runs", testPlain},
		{"starting what is there changes nothing", testStartTwice},
		{"a program that ends at once is reported with status and output", testExits},
		{"what has ended is told until it is removed, to a new observer too", testJob},
		{"a probe that fails is told in words", testSick},
		{"stop lets a program end", testStop},
		{"stop ends a program that does not want to", testStubborn},
		{"remove takes a running instance away", testRemove},
		{"what does not exist can be stopped and removed", testNothing},
		{"a start that fails leaves nothing", testMissing},
		{"an exclusive volume has one holder, which a new observer knows", testHolder},
		{"a shared volume has any number of holders", testShared},
		{"an older fencing token is refused, also by a new observer", testFence},
		{"instances start side by side, each with its own address", testMany},
		{"a new observer takes over what runs", testReopen},
		{"a new observer sees what ended without one", testReopenExited},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, &suite{t: t, world: newWorld(t)}) })
	}
}

type suite struct {
	t     *testing.T
	world PlatformWorld
	count int
}

func (s *suite) order(b Behaviour) (rollout.Instance, spec.Spec) {
	s.count++
	return rollout.Instance{
		ID:        string(b) + "-" + strconv.Itoa(s.count),
		Component: string(b),
		Release:   digest.FromString("release"),
		Spec:      digest.FromString(string(b)),
	}, s.world.Spec(b)
}

func (s *suite) start(b Behaviour) rollout.Instance {
	s.t.Helper()
	in, what := s.order(b)
	if err := s.world.Platform.Start(s.t.Context(), suiteEnv, in, what); err != nil {
		s.t.Fatalf("start %s: %v", b, err)
	}
	return in
}

func (s *suite) list(env rollout.Key) []rollout.Observed {
	s.t.Helper()
	if s.world.Tick != nil {
		s.world.Tick()
	}
	got, err := s.world.Platform.List(s.t.Context(), env)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

func (s *suite) find(id string) (rollout.Observed, bool) {
	s.t.Helper()
	for _, o := range s.list(suiteEnv) {
		if o.ID == id {
			return o, true
		}
	}
	return rollout.Observed{}, false
}

// until looks until the instance is as wanted, woken by Changes or, so that what
// is no change of phase is seen too, by time.
func (s *suite) until(id, what string, want func(rollout.Observed) bool) rollout.Observed {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	var last rollout.Observed
	for {
		o, ok := s.find(id)
		if ok && want(o) {
			return o
		}
		last = o
		select {
		case <-s.world.Platform.Changes():
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			s.t.Fatalf("%s is not %s in time; it is %+v", id, what, last)
		}
	}
}

func (s *suite) untilPhase(id string, phase rollout.Phase) rollout.Observed {
	s.t.Helper()
	return s.until(id, string(phase), func(o rollout.Observed) bool { return o.Phase == phase })
}

func (s *suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func testReady(t *testing.T, s *suite) {
	in := s.start(Serves)
	o := s.untilPhase(in.ID, rollout.Ready)
	if o.Component != in.Component || o.Release != in.Release || o.Spec != in.Spec {
		t.Errorf("listed as %+v, ordered as %+v", o, in)
	}
	if o.Address == "" || o.StartedAt.IsZero() {
		t.Errorf("no address or no start time: %+v", o)
	}
	if o.Exit != nil || o.Probe != "" {
		t.Errorf("a ready instance with an exit or a failing probe: %+v", o)
	}
	if got := s.list(otherEnv); len(got) != 0 {
		t.Errorf("another environment lists it: %+v", got)
	}
}

func testPlain(t *testing.T, s *suite) {
	in := s.start(Plain)
	if o, ok := s.find(in.ID); !ok || o.Phase != rollout.Ready || o.Address != "" {
		t.Errorf("after Start: %+v", o)
	}
}

func testStartTwice(t *testing.T, s *suite) {
	in, what := s.order(Serves)
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, in, what))
	before := s.untilPhase(in.ID, rollout.Ready)
	s.must(s.world.Platform.Start(t.Context(), suiteEnv, in, what))
	if after, _ := s.find(in.ID); !after.StartedAt.Equal(before.StartedAt) || after.Address != before.Address {
		t.Errorf("was %+v, is %+v", before, after)
	}
	if got := s.list(suiteEnv); len(got) != 1 {
		t.Errorf("%d instances", len(got))
	}
}

func testExits(t *testing.T, s *suite) {
	in := s.start(Exits)
	o := s.untilPhase(in.ID, rollout.Exited)
	if o.Exit == nil || o.Exit.Code != 3 || o.Exit.Signal != "" || o.Exit.At.IsZero() {
		t.Errorf("exit %+v", o.Exit)
	}
	if !slices.ContainsFunc(o.Tail, func(l string) bool { return strings.Contains(l, Farewell) }) {
		t.Errorf("its last lines are %q", o.Tail)
	}
	s.must(s.world.Platform.Stop(t.Context(), in.ID))
	if again, _ := s.find(in.ID); again.Phase != rollout.Exited {
		t.Errorf("stopping what has ended made it %s", again.Phase)
	}
}

func testSick(t *testing.T, s *suite) {
	in := s.start(Sick)
	o := s.until(in.ID, "with a failing probe", func(o rollout.Observed) bool { return o.Probe != "" })
	if o.Phase != rollout.Starting {
		t.Errorf("phase %s", o.Phase)
	}
}

func testStop(t *testing.T, s *suite) {
	in := s.start(Serves)
	s.untilPhase(in.ID, rollout.Ready)
	s.must(s.world.Platform.Stop(t.Context(), in.ID))
	if o, _ := s.find(in.ID); o.Phase != rollout.Stopping && o.Phase != rollout.Exited {
		t.Errorf("after Stop it is %s", o.Phase)
	}
	s.must(s.world.Platform.Stop(t.Context(), in.ID))
	if o := s.untilPhase(in.ID, rollout.Exited); o.Exit == nil || o.Exit.Signal == "SIGKILL" {
		t.Errorf("exit %+v", o.Exit)
	}
}

func testStubborn(t *testing.T, s *suite) {
	in := s.start(Stubborn)
	s.untilPhase(in.ID, rollout.Ready)
	s.must(s.world.Platform.Stop(t.Context(), in.ID))
	if o := s.untilPhase(in.ID, rollout.Exited); o.Exit == nil || o.Exit.Code != 137 || o.Exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", o.Exit)
	}
}

func testRemove(t *testing.T, s *suite) {
	in := s.start(Stubborn)
	other := s.start(Serves)
	s.untilPhase(in.ID, rollout.Ready)
	s.must(s.world.Platform.Remove(t.Context(), in.ID))
	if _, ok := s.find(in.ID); ok {
		t.Error("still listed")
	}
	s.must(s.world.Platform.Remove(t.Context(), in.ID))
	s.must(s.world.Platform.Stop(t.Context(), in.ID))
	s.untilPhase(other.ID, rollout.Ready)
}

func testNothing(t *testing.T, s *suite) {
	s.must(s.world.Platform.Stop(t.Context(), "nobody"))
	s.must(s.world.Platform.Remove(t.Context(), "nobody"))
	if got := s.list(suiteEnv); len(got) != 0 {
		t.Errorf("listed: %+v", got)
	}
}

func testMissing(t *testing.T, s *suite) {
	in, what := s.order(Missing)
	err := s.world.Platform.Start(t.Context(), suiteEnv, in, what)
	var f *fault.Error
	if !errors.As(err, &f) || f.What == "" {
		t.Errorf("error %v", err)
	}
	if o, ok := s.find(in.ID); ok {
		t.Errorf("still listed: %+v", o)
	}
}

func testMany(t *testing.T, s *suite) {
	const many = 4
	var wg sync.WaitGroup
	var ids []string
	for range many {
		in, what := s.order(Serves)
		ids = append(ids, in.ID)
		wg.Go(func() {
			if err := s.world.Platform.Start(t.Context(), suiteEnv, in, what); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	addresses := map[string]bool{}
	for _, id := range ids {
		addresses[s.untilPhase(id, rollout.Ready).Address] = true
	}
	if len(addresses) != many {
		t.Errorf("addresses %v", addresses)
	}
}
