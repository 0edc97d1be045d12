package nft

import (
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestReachedFromEverywhere(t *testing.T) {
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge filters "+filtered, func(t *testing.T) {
			w := newWorld(t)
			bridged(t, filtered)
			a, b, out := w.instance(2), w.instance(3), w.neighbour()
			table := redis(1, a.serve(6379))
			table.Services[0].Listen = "0.0.0.0:7000"
			w.apply(table)
			stable := w.address(production, "redis", 6379)
			for name, c := range map[string]struct {
				from *place
				to   string
			}{
				"an instance":                    {b, stable},
				"the instance itself (hairpin)":  {a, stable},
				"the host":                       {w.hostPlace(), stable},
				"the host by its loopback":       {w.hostPlace(), "127.0.0.1:7000"},
				"the host by an address of its":  {w.hostPlace(), "192.0.2.1:7000"},
				"an instance by the host":        {b, "10.213.0.1:7000"},
				"a neighbour by the host's port": {out, "192.0.2.1:7000"},
			} {
				for range 3 {
					if who, _, err := c.from.ask(c.to); err != nil || who != a.addr.String() {
						t.Errorf("from %s: %q, %v", name, who, err)
					}
				}
			}
			w.down(2, production)
		})
	}
}

// bridged says whether bridged packets pass the IP rules too (br_netfilter).
func bridged(t *testing.T, value string) {
	t.Helper()
	write(t, "/proc/sys/net/bridge/bridge-nf-call-iptables", value)
}

func TestWeights(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.instance(2), w.instance(3), w.instance(4)
	x, y, z := a.serve(6379), b.serve(6379), c.serve(6379)
	x.Weight, y.Weight, z.Weight = 30, 10, 0
	w.apply(redis(1, x, y, z))
	got := map[string]int{}
	for range 40 {
		who, _, err := w.hostPlace().ask(w.address(production, "redis", 6379))
		must(t, err)
		got[who]++
	}
	if got[a.addr.String()] != 30 || got[b.addr.String()] != 10 {
		t.Errorf("of 40 connections by 30:10:0 there were %v", got)
	}
	w.down(2, production)
}

func TestTwoEnvironments(t *testing.T) {
	w := newWorld(t)
	staging := rollout.Key{App: "shop", Env: "staging"}
	a, b := w.instance(2), w.instance(3)
	w.apply(redis(1, a.serve(6379)))
	must(t, w.Apply(t.Context(), staging, redis(5, b.serve(6379))))
	for key, want := range map[rollout.Key]*place{production: a, staging: b} {
		if who, _, err := b.ask(w.address(key, "redis", 6379)); err != nil || who != want.addr.String() {
			t.Errorf("%s: %q, %v", key, who, err)
		}
	}
	must(t, w.Apply(t.Context(), staging, rollout.Table{Generation: 6}))
	if _, _, err := b.ask(w.address(staging, "redis", 6379)); !refused(err) {
		t.Errorf("a service that is down: %v", err)
	}
	if who, _, err := b.ask(w.address(production, "redis", 6379)); err != nil || who != a.addr.String() {
		t.Errorf("the other environment: %q, %v", who, err)
	}
	w.until("staging is gone", func() bool {
		s, err := w.Status(t.Context(), staging)
		return err == nil && s.Generation == 0 && !w.Routes(staging)
	})
	w.down(2, production)
	if strings.Contains(w.host(), "ashlar-") {
		t.Error("a table stays")
	}
}
