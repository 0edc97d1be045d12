package main

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// half is a router that remembers.
type half struct {
	got     []string // services of the last table
	status  rollout.RouterStatus
	refuses error // of Check
	routes  bool
}

func (h *half) Apply(_ context.Context, _ engine.Key, t rollout.Table) error {
	h.got = nil
	for _, s := range t.Services {
		h.got = append(h.got, s.Name)
	}
	h.status.Generation = t.Generation
	return nil
}

func (h *half) Status(context.Context, engine.Key) (rollout.RouterStatus, error) {
	return h.status, nil
}
func (h *half) Check(engine.Key, rollout.Table) error { return h.refuses }
func (h *half) Routes(engine.Key) bool                { return h.routes }

func TestRoutesAreBoths(t *testing.T) {
	http := &half{status: rollout.RouterStatus{InFlight: map[string]int{"web": 2}, Cut: map[string]rollout.Flight{"web": {Requests: 1}}}}
	tcp := &half{routes: true, status: rollout.RouterStatus{
		InFlight: map[string]int{"redis": 3}, Kinds: map[string]rollout.Flight{"redis": {TCP: 3}}, Cut: map[string]rollout.Flight{"redis": {TCP: 4}},
	}}
	both := routes{http, tcp}
	table := rollout.Table{Generation: 7, Services: []rollout.Service{{Name: "redis", TCP: 6379}, {Name: "web", Path: "/"}}}
	tcp.refuses = errors.New("no")
	if err := both.Apply(t.Context(), production, table); err == nil || http.got != nil {
		t.Errorf("%v; a table that the kernel will refuse reached the router: %v", err, http.got)
	}
	tcp.refuses = nil
	if err := both.Apply(t.Context(), production, table); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"web"}, http.got); diff != "" {
		t.Error(diff)
	}
	tcp.status.Generation = 6
	s, err := both.Status(t.Context(), production)
	if err != nil {
		t.Fatal(err)
	}
	want := rollout.RouterStatus{
		Generation: 6, InFlight: map[string]int{"web": 2, "redis": 3}, Kinds: map[string]rollout.Flight{"redis": {TCP: 3}},
		Cut: map[string]rollout.Flight{"web": {Requests: 1}, "redis": {TCP: 4}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	tcp.routes = false
	if s, err := both.Status(t.Context(), production); err != nil || s.Generation != 7 || len(s.InFlight) != 1 {
		t.Errorf("where the kernel has no part: %+v, %v", s, err)
	}
}
