package sim

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/release"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestPlatform holds the made-up platform to what the real one is held to: a
// simulation is worth no more than its likeness.
func TestPlatform(t *testing.T) {
	behaviours := map[conformance.Behaviour]string{
		conformance.Serves: "good", conformance.Plain: "good", conformance.Sick: "never-ready",
		conformance.Exits: "exits", conformance.Stubborn: "stubborn", conformance.Missing: "refused", conformance.Holds: "good", conformance.Shares: "good",
	}
	conformance.Platform(t, func(*testing.T) conformance.PlatformWorld {
		w := newWorld(1)
		w.faults = false
		p := &oneAtATime{platform: platform{w}}
		return conformance.PlatformWorld{
			Platform: p,
			Spec: func(b conformance.Behaviour) release.Spec {
				spec := release.Spec{Env: map[string]string{"behaviour": behaviours[b]}, StopGraceMS: 500}
				switch b {
				case conformance.Plain:
				case conformance.Holds:
					spec.Volumes = []release.Mount{{Path: "/data", Volume: "data", Mode: release.VolumeExclusive}}
				case conformance.Shares:
					spec.Volumes = []release.Mount{{Path: "/files", Volume: "files", Mode: release.VolumeShared}}
				default:
					spec.Port, spec.Health = 80, &release.Health{HTTP: "/"}
				}
				return spec
			},
			Reopen: func(*testing.T) engine.Platform {
				for _, u := range w.units {
					u.probed = false
				}
				return p
			},
			Tick: func() {
				p.Lock()
				defer p.Unlock()
				w.advance(w.now.Add(50 * time.Millisecond))
			},
		}
	})
}

// oneAtATime lets the suite, which has goroutines, use a world, which has none.
type oneAtATime struct {
	sync.Mutex
	platform
}

func (p *oneAtATime) Start(ctx context.Context, env rollout.Key, in rollout.Instance, spec release.Spec) error {
	p.Lock()
	defer p.Unlock()
	return p.platform.Start(ctx, env, in, spec)
}
