package nft

import (
	"context"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/engine"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

var _ engine.Router = (*Router)(nil)

// TestRouter holds the kernel's routes to what every router is held to. A visit is a
// connection of an instance.
func TestRouter(t *testing.T) {
	conformance.Router(t, func(t *testing.T) conformance.RouterWorld {
		v := &visits{world: newWorld(t), ids: map[string]string{}}
		v.from = v.instance(2)
		t.Cleanup(func() {
			for _, key := range []rollout.Key{{App: "conformance", Env: "suite"}, {App: "conformance", Env: "other"}} {
				s, err := v.Status(context.Background(), key)
				must(t, err)
				v.down(s.Generation+1, key)
			}
		})
		return conformance.RouterWorld{
			Router: v.Router, Service: rollout.Service{Name: "redis", TCP: 6379}, Backend: v.backend, Visit: v.visit,
		}
	})
}

type visits struct {
	*world
	from *place
	ids  map[string]string // address of a backend to its ID
}

func (v *visits) backend(t *testing.T, id string) rollout.Backend {
	p := v.instance(byte(10 + len(v.ids)))
	b := p.serve(6379)
	v.ids[p.addr.String()] = id
	b.ID = id
	return b
}

func (v *visits) visit(t *testing.T) *conformance.Visit {
	to := v.address(rollout.Key{App: "conformance", Env: "suite"}, "redis", 6379)
	reached, ended, over := make(chan string, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(reached)
		c, who, _, err := v.from.dial(to, 20*time.Second)
		if err != nil {
			return
		}
		reached <- v.ids[who]
		go func() {
			select {
			case <-over:
			case <-ended:
			}
			_ = c.Close()
		}()
		_, _ = c.Read(make([]byte, 1)) // until either end closes it
	}()
	var closed bool
	return &conformance.Visit{Reached: reached, Ended: ended, Close: func() {
		if !closed {
			closed = true
			close(over)
		}
	}}
}
