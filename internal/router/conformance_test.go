package router

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/conformance"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// TestRouter holds the http router to what every router is held to. A visit is a
// POST: what may be repeated would go on elsewhere when it is cut.
func TestRouter(t *testing.T) {
	conformance.Router(t, func(t *testing.T) conformance.RouterWorld {
		g := newRig(t)
		return conformance.RouterWorld{
			Router: g.Client, Listen: g.addr, Service: rollout.Service{Name: "web", Path: "/"},
			Backend: func(t *testing.T, id string) rollout.Backend {
				b, _ := instance(t, id, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("X-Backend", id)
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
				})
				return b
			},
			Visit: g.visit,
		}
	})
}

func (g *rig) visit(t *testing.T) *conformance.Visit {
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", g.url("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	reached, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(reached)
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			reached <- resp.Header.Get("X-Backend")
		}
		io.Copy(io.Discard, resp.Body)
	}()
	return &conformance.Visit{Reached: reached, Ended: ended, Close: cancel}
}
