package engine_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestForesee: what is foretold is what the deploy then orders, and foretelling it
// neither writes nor does anything.
func TestForesee(t *testing.T) {
	w := newWorld()
	e := w.engine(func(c *engine.Config) { c.Parallel = 1 })
	live(t, e, "1")
	w.took()
	told, err := e.Foresee(t.Context(), midnight, key, shop("2"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"list shop/prod"}, w.took()); diff != "" {
		t.Errorf("it did more than look: -want +got: %s", diff)
	}
	deploy(t, e, "2")
	if _, err := e.Tick(t.Context(), midnight, key); err != nil {
		t.Fatal(err)
	}
	want := map[string]rollout.Instance{}
	for _, o := range state(t, e).Instances {
		if o.Release != state(t, e).Current.Release {
			want[o.ID] = o.Instance
		}
	}
	got := map[string]rollout.Instance{}
	for _, f := range told {
		got[f.Instance.ID] = f.Instance
		if f.Spec.Digest() != f.Instance.Spec {
			t.Errorf("%s is told with another spec", f.Instance.ID)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("-ordered +foretold: %s", diff)
	}
	if told, err := e.Foresee(t.Context(), midnight, key, shop("3")); err != nil || len(told) > 0 {
		t.Errorf("amid a rollout it tells %v, %v", told, err)
	}
}
