package local

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// prepare waits until the instance is made, and gives its unit.
func (w *world) prepare(id string, s release.Spec) *prepared {
	w.t.Helper()
	w.Prepare(env, order(id), s)
	pre := w.ahead.prepared[id]
	if pre == nil {
		w.t.Fatal("it is not being prepared")
	}
	<-pre.made
	return pre
}

func TestPreparedInstanceIsStartedWhenItIsOrdered(t *testing.T) {
	w := newWorld(t)
	pre := w.prepare("serves", spec("serves", serving))
	if seen, err := w.List(t.Context(), env); err != nil || len(seen) > 0 {
		t.Errorf("what was only prepared is listed: %v, %v", seen, err)
	}
	if b, err := os.ReadFile(w.logFile(env, "serves")); err != nil || len(b) > 0 {
		t.Errorf("what was only prepared wrote %q, %v", b, err)
	}
	began := time.Now()
	w.start("serves", spec("serves", serving))
	w.untilPhase("serves", rollout.Ready)
	if w.find("serves") != pre.instance {
		t.Error("the instance was made anew")
	}
	if !w.mainTime("serves").After(began) {
		t.Error("the program ran before it was ordered")
	}
}

// Who was prepared before the services that it calls were known is made anew: its hosts
// file would lack their names.
func TestWhatWasPreparedWithoutItsPeersIsMadeAnew(t *testing.T) {
	var known atomic.Bool
	w := newWorld(t, func(c *Config) {
		c.Peers = func(rollout.Key) map[string]netip.Addr {
			if !known.Load() {
				return nil
			}
			return map[string]netip.Addr{"back": netip.MustParseAddr("10.214.0.1")}
		}
	})
	w.prepare("looks", spec("looks"))
	known.Store(true)
	_, out := w.run("looks", spec("looks"))
	if text := strings.Join(out, "\n"); !strings.Contains(text, "10.214.0.1 back") {
		t.Errorf("it cannot call back:\n%s", text)
	}
}

func TestWhatWasPreparedOtherwiseIsMadeAnew(t *testing.T) {
	for name, change := range map[string]func(*rollout.Instance, *release.Spec){
		"spec":    func(_ *rollout.Instance, s *release.Spec) { s.Command[1] = "plain" },
		"release": func(in *rollout.Instance, _ *release.Spec) { in.Release = digest.FromString("another") },
		"fence":   func(in *rollout.Instance, _ *release.Spec) { in.Fence = 7 },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			in, s := order("serves"), spec("serves", serving)
			pre := w.prepare("serves", spec("serves", serving))
			unit := pre.meta.Unit
			change(&in, &s)
			if err := w.Start(t.Context(), env, in, s); err != nil {
				t.Fatal(err)
			}
			if i := w.find("serves"); i.meta.Unit == unit || i.meta.Instance != in || i.meta.Spec.Command[1] != s.Command[1] {
				t.Errorf("it was made of what was prepared: %+v", i.meta)
			}
			if _, err := os.Stat(filepath.Join(w.runcRoot(), unit)); err == nil {
				t.Error("what was prepared is still there")
			}
		})
	}
}

func TestPreparedInstanceWhoseShimDiedIsMadeAnew(t *testing.T) {
	w := newWorld(t)
	pre := w.prepare("serves", spec("serves", serving))
	w.kill(w.shimPID("serves"))
	<-pre.client().Done()
	w.start("serves", spec("serves", serving))
	w.untilPhase("serves", rollout.Ready)
}

func TestWhatCouldNotBePreparedFailsWhenItIsOrdered(t *testing.T) {
	w := newWorld(t)
	missing := spec("plain", func(s *release.Spec) { s.Command[0] = "/bin/nothing" })
	w.prepare("missing", missing)
	if err := w.Start(t.Context(), env, order("missing"), missing); err == nil || !strings.Contains(err.Error(), "/bin/nothing is not in the artifact") {
		t.Errorf("got %v", err)
	}
}

// Nobody may be kept from a volume by an instance that is not ordered, and a secret
// goes to nobody who may never be.
func TestVolumesAndSecretsAreForOrderedInstancesOnly(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*release.Spec){
		"volume": func(s *release.Spec) {
			s.Volumes = []release.Mount{{Volume: "data", Path: "/tmp", Mode: release.VolumeExclusive}}
		},
		"secret": func(s *release.Spec) { s.Secrets = []release.Secret{{Name: "password", Version: 1, Env: "PASSWORD"}} },
	} {
		s := spec("plain")
		change(&s)
		w.Prepare(env, order(name), s)
		if w.ahead.prepared[name] != nil {
			t.Errorf("one with a %s is prepared", name)
		}
	}
}

func TestWhatWasPreparedForNothingGoes(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.patience = 50 * time.Millisecond })
	w.prepare("serves", spec("serves", serving))
	deadline := time.Now().Add(10 * time.Second)
	for len(processes(t, w.cfg.RunDir)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", processes(t, w.cfg.RunDir))
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestWhatWasPreparedGoesWithItsServer(t *testing.T) {
	w := newWorld(t)
	pre := w.prepare("serves", spec("serves", serving))
	// As after kill -9: the connection ends, and nobody sweeps.
	w.ahead.takePrepared("serves")
	if err := pre.client().Close(); err != nil {
		t.Fatal(err)
	}
	w.network.release(pre.meta.Address)
	w.reopen(t)
	if left, _ := os.ReadDir(w.instancesDir()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
