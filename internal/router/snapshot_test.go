package router

import (
	"fmt"
	"testing"
	"time"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestMatchPrefersHostThenLongestPath(t *testing.T) {
	svc := func(name, host, path string) *service {
		if path == "/" {
			path = ""
		}
		return &service{name: name, host: host, path: path}
	}
	s := newSnapshot(map[string][]*service{"127.0.0.1:80": {
		svc("any", "", "/"), svc("any-api", "", "/api"), svc("any-api-v2", "", "/api/v2"),
		svc("shop", "shop.example", "/"), svc("shop-api", "shop.example", "/api"),
		svc("only-x", "x.example", "/x"), svc("v6", "::1", "/"),
	}})
	for _, c := range []struct{ host, path, want string }{
		{"other.example", "/", "any"},
		{"other.example", "/api", "any-api"},
		{"other.example", "/api/", "any-api"},
		{"other.example", "/api/v2/y", "any-api-v2"},
		{"other.example", "/api/v20", "any-api"},
		{"other.example", "/apix", "any"},
		{"shop.example", "/apix", "shop"},
		{"SHOP.example:8080", "/api/v2", "shop-api"},
		{"shop.example.", "/", "shop"},
		{"x.example", "/x/1", "only-x"},
		{"x.example", "/y", "any"},
		{"[::1]:8080", "/", "v6"},
		{"[::1]", "/", "v6"},
		{"other.example", "*", ""},
		{"other.example", "", "any"},
	} {
		got := ""
		if svc := s.match("127.0.0.1:80", c.host, c.path); svc != nil {
			got = svc.name
		}
		if got != c.want {
			t.Errorf("%s%s goes to %q, want %q", c.host, c.path, got, c.want)
		}
	}
	if s.match("127.0.0.1:81", "shop.example", "/") != nil {
		t.Error("matched on an address where nothing is routed")
	}
}

func TestTurnsFollowTheWeights(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {9, 1}, {1, 1, 1}, {95, 5}, {1, 2, 3, 4}, {1000000, 1}} {
		svc := &service{}
		sum := 0
		for i, w := range weights {
			b := newBackend(fmt.Sprint(i), "127.0.0.1:1")
			b.open()
			svc.addBackend(b, w)
			sum += w
		}
		const n = 10000
		for range n {
			if b, _ := svc.take(nil); b == nil {
				t.Fatal("none taken")
			}
		}
		for i, b := range svc.backends {
			want := n * weights[i] / sum
			if got := b.inFlight(); got < want-4 || got > want+4 {
				t.Errorf("weights %v: backend %d got %d of %d, want %d", weights, i, got, n, want)
			}
		}
	}
}

func TestTakeSaysWhenTheSnapshotIsStale(t *testing.T) {
	svc := &service{}
	b := newBackend("a", "127.0.0.1:1")
	svc.addBackend(b, 1)
	if got, stale := svc.take(nil); got != nil || !stale {
		t.Errorf("shut backend: %v, stale %v", got, stale)
	}
	b.open()
	b.down()
	if got, _ := svc.take(nil); got != b {
		t.Error("a backend that could not be reached is not even the last choice")
	}
	if got, stale := svc.take([]*backend{b}); got != nil || stale {
		t.Errorf("tried backend: %v, stale %v", got, stale)
	}
}

func TestTableIsCheckedAsAWhole(t *testing.T) {
	good := rollout.Table{Generation: 1, Listen: "127.0.0.1:8080", Services: []rollout.Service{{Name: "web", Path: "/", Backends: []rollout.Backend{{ID: "a", Address: "127.0.0.1:1", Weight: 1}}}}}
	if _, err := normal(shop, good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*rollout.Table, *rollout.Service){
		"no generation":    func(tb *rollout.Table, _ *rollout.Service) { tb.Generation = 0 },
		"no listen":        func(tb *rollout.Table, _ *rollout.Service) { tb.Listen = "" },
		"listen port 0":    func(tb *rollout.Table, _ *rollout.Service) { tb.Listen = "127.0.0.1:0" },
		"listen port name": func(tb *rollout.Table, _ *rollout.Service) { tb.Listen = "127.0.0.1:http" },
		"host with port":   func(_ *rollout.Table, s *rollout.Service) { s.Host = "a:80" },
		"wildcard host":    func(_ *rollout.Table, s *rollout.Service) { s.Host = "*.a" },
		"relative path":    func(_ *rollout.Table, s *rollout.Service) { s.Path = "x" },
		"path with query":  func(_ *rollout.Table, s *rollout.Service) { s.Path = "/x?y" },
		"negative hold":    func(_ *rollout.Table, s *rollout.Service) { s.Hold = -1 },
		"endless drain":    func(_ *rollout.Table, s *rollout.Service) { s.Drain = 100 * time.Hour },
		"no name":          func(_ *rollout.Table, s *rollout.Service) { s.Name = "" },
		"negative weight":  func(_ *rollout.Table, s *rollout.Service) { s.Backends[0].Weight = -1 },
		"no address":       func(_ *rollout.Table, s *rollout.Service) { s.Backends[0].Address = ":80" },
		"backend ID twice": func(_ *rollout.Table, s *rollout.Service) { s.Backends = append(s.Backends, s.Backends[0]) },
		"service twice": func(tb *rollout.Table, s *rollout.Service) {
			tb.Services = append(tb.Services, rollout.Service{Name: s.Name, Path: "/b"})
		},
		"ID with a newline": func(_ *rollout.Table, s *rollout.Service) { s.Backends[0].ID = "a\nb" },
	} {
		bad := good
		bad.Services = []rollout.Service{good.Services[0]}
		bad.Services[0].Backends = []rollout.Backend{good.Services[0].Backends[0]}
		spoil(&bad, &bad.Services[0])
		if _, err := normal(shop, bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
