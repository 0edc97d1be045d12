package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/record"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// opinion is a policy that says what it is told to say, and remembers what it was asked.
type opinion struct {
	says  rollout.Admission
	err   error
	asked []rollout.Plea
	kept  []string // release and facts
	full  error    // nothing can be kept
}

func (o *opinion) Admit(_ context.Context, _ time.Time, p rollout.Plea) (rollout.Admission, error) {
	o.asked = append(o.asked, p)
	return o.says, o.err
}

func (o *opinion) Keep(_ context.Context, release digest.Digest, facts []byte) error {
	o.kept = append(o.kept, string(release)+" "+string(facts))
	return o.full
}

func (o *opinion) judges(c *engine.Config) { c.Admitter = o }

func yes() rollout.Admission {
	return rollout.Admission{Policy: digest.FromString("policy"), Admitted: true, Data: map[string]string{"rule.signed": "holds"}}
}

func no() rollout.Admission {
	return rollout.Admission{Policy: digest.FromString("policy"), Why: "signed: nobody signed it", Details: []string{"rule signed: nobody signed it"}, Data: map[string]string{"rule.signed": "fails"}}
}

func told(t *testing.T, e *engine.Engine, kind string) []record.Entry {
	t.Helper()
	all, err := e.Store.Entries(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	var out []record.Entry
	for _, entry := range all {
		if entry.Kind == kind {
			out = append(out, entry)
		}
	}
	return out
}

// What the policy says of a deploy is in the record, whichever it is; what it refuses
// begins nothing, and what it cannot be asked about neither.
func TestAdmission(t *testing.T) {
	o := &opinion{says: yes()}
	e := newWorld().engine(o.judges)
	first := live(t, e, "1")
	if got := told(t, e, "admission.admitted"); len(got) != 1 || got[0].Release != first.Digest || got[0].Data["rule.signed"] != "holds" {
		t.Errorf("of an admitted release the record says %+v", got)
	}
	second := add(t, e, shop("2"))
	before := state(t, e)
	o.says = no()
	_, err := e.Deploy(t.Context(), midnight, "dana", key, second.Digest, engine.DeployOptions{Force: true, Reason: "now"})
	wantKind(t, err, fault.Refused)
	if !strings.Contains(err.Error(), "rule signed: nobody signed it") || !strings.Contains(err.Error(), "ashlar policy test prod 2") {
		t.Errorf("it is refused with %v", err)
	}
	refused := told(t, e, "admission.refused")
	if len(refused) != 1 || refused[0].Actor != "dana" || refused[0].Data["rule.signed"] != "fails" || refused[0].Reason == "" {
		t.Errorf("of a refused release the record says %+v", refused)
	}
	o.err = errors.New("no trust root")
	_, err = e.Deploy(t.Context(), midnight, "dana", key, second.Digest, engine.DeployOptions{})
	wantKind(t, err, fault.Unavailable)
	if after := state(t, e); after.Rollouts != before.Rollouts || after.Rollout != nil {
		t.Errorf("a rollout began: %+v", after.Rollout)
	}
}

// The glass is broken with a reason, which is what the policy is asked with, also when
// it is asked again; who broke it stays to be seen as long as the release is live.
func TestBreakGlass(t *testing.T) {
	o := &opinion{says: no()}
	e := newWorld().engine(o.judges)
	rel := add(t, e, shop("1"))
	_, err := e.Deploy(t.Context(), midnight, "dana", key, rel.Digest, engine.DeployOptions{BreakGlass: true, Reason: " "})
	wantKind(t, err, fault.Invalid)
	o.says = yes()
	o.says.BreakGlass = "anna, boris"
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, rel.Digest, engine.DeployOptions{BreakGlass: true, Reason: "it burns"}); err != nil {
		t.Fatal(err)
	}
	settle(t, e)
	if s := state(t, e); s.Current == nil || s.Current.BreakGlass != "anna, boris: it burns" {
		t.Errorf("live is %+v", s.Current)
	}
	for i, p := range o.asked {
		if p.BreakGlass != "it burns" || p.Release != rel.Digest || p.Kind != rollout.KindDeploy {
			t.Errorf("question %d: %+v", i, p)
		}
	}
	if len(o.asked) < 3 {
		t.Errorf("the policy was asked %d times", len(o.asked))
	}
	if got := told(t, e, "admission.admitted"); len(got) != 1 || !strings.Contains(got[0].Reason, "the glass was broken by anna, boris: it burns") {
		t.Errorf("the record says %+v", got)
	}
}

// A rollback asks the policy as it is now, and so does its rehearsal. Putting back a
// deploy in flight asks nobody: the release that serves goes on serving.
func TestAdmissionOfTheWayBack(t *testing.T) {
	o := &opinion{says: yes()}
	w := newWorld()
	e := w.engine(o.judges)
	live(t, e, "1")
	live(t, e, "2")
	o.says = no()
	ready, err := e.Rehearse(t.Context(), midnight, key)
	if err != nil || ready.OK || !strings.Contains(strings.Join(ready.Why, " "), "the policy does not admit it: signed") {
		t.Errorf("rehearsed: %+v %v", ready, err)
	}
	_, err = e.Rollback(t.Context(), midnight, "dana", key, "", engine.DeployOptions{})
	wantKind(t, err, fault.Refused)

	o.says = yes()
	w.phase = rollout.Starting
	deploy(t, e, "3")
	if _, err := e.Tick(t.Context(), midnight, key); err != nil {
		t.Fatal(err)
	}
	o.says = no()
	if _, err := e.Rollback(t.Context(), midnight, "dana", key, "", engine.DeployOptions{}); err != nil {
		t.Errorf("a deploy in flight is not put back: %v", err)
	}
	settle(t, e)
	if s := state(t, e); s.Rollout != nil || s.LastResult.Outcome != rollout.PutBack || s.Current.Number != 2 {
		t.Errorf("after it release %d serves, %+v", s.Current.Number, s.LastResult)
	}
}

// What is live goes on when the policy turns against it, which is in the record once, and
// once more when it has nothing against it any more.
func TestStanding(t *testing.T) {
	o := &opinion{says: yes()}
	e := newWorld().engine(o.judges)
	live(t, e, "1")
	stand := func() *rollout.Standing {
		t.Helper()
		if err := e.Stand(t.Context(), midnight, key); err != nil {
			t.Fatal(err)
		}
		settle(t, e)
		s := state(t, e)
		if s.Current == nil || s.Current.Number != 1 || len(s.Instances) == 0 || s.Rollout != nil {
			t.Fatalf("it does not go on: %+v", s)
		}
		return s.Standing
	}
	if s := stand(); s != nil {
		t.Errorf("%+v", s)
	}
	o.says = no()
	stand()
	if s := stand(); s == nil || s.Why != "signed: nobody signed it" {
		t.Errorf("%+v", s)
	}
	o.err = errors.New("no answer")
	if s := stand(); s == nil {
		t.Error("no answer is a yes")
	}
	o.says, o.err = yes(), nil
	if s := stand(); s != nil {
		t.Errorf("%+v", s)
	}
	if a, b := told(t, e, "release.disallowed"), told(t, e, "release.allowed"); len(a) != 1 || len(b) != 1 {
		t.Errorf("%d and %d entries", len(a), len(b))
	}
	if p := o.asked[len(o.asked)-1]; p.Kind != rollout.KindRollback {
		t.Errorf("it is asked as %s", p.Kind)
	}
}

// What a release was judged by is kept before the record names it, whatever the verdict; where
// it cannot be kept nothing is told and nothing begins.
func TestFactsAreKept(t *testing.T) {
	o := &opinion{says: yes()}
	o.says.Facts = []byte("why yes")
	e := newWorld().engine(o.judges)
	first := live(t, e, "1")
	second := add(t, e, shop("2"))
	o.says = no()
	o.says.Facts = []byte("why no")
	_, err := e.Deploy(t.Context(), midnight, "dana", key, second.Digest, engine.DeployOptions{})
	wantKind(t, err, fault.Refused)
	want := []string{string(first.Digest) + " why yes", string(second.Digest) + " why no"}
	if !slices.Equal(o.kept, want) {
		t.Errorf("kept %q, want %q", o.kept, want)
	}
	o.full = errors.New("no space left")
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, second.Digest, engine.DeployOptions{}); !errors.Is(err, o.full) {
		t.Errorf("with a full disk: %v", err)
	}
	o.says = yes()
	o.says.Facts = []byte("why yes")
	if _, err := e.Deploy(t.Context(), midnight, "dana", key, second.Digest, engine.DeployOptions{}); !errors.Is(err, o.full) {
		t.Errorf("with a full disk: %v", err)
	}
	if got := len(told(t, e, "admission.refused")) + len(told(t, e, "admission.admitted")); got != 2 || state(t, e).Rollout != nil {
		t.Errorf("the record tells of %d verdicts, and %+v is in flight", got, state(t, e).Rollout)
	}
}
