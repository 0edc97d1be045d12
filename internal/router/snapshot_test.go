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

// weighed is a service with one open backend for each weight, in the groups named.
func weighed(match *rollout.Match, releases string, weights ...int) *service {
	in := rollout.Service{Match: match}
	backends := map[string]*backend{}
	for i, w := range weights {
		b := rollout.Backend{ID: fmt.Sprint(i), Address: "127.0.0.1:1", Weight: w, Release: releases[i : i+1]}
		backends[b.ID] = newBackend(b.ID, b.Address)
		backends[b.ID].open()
		in.Backends = append(in.Backends, b)
	}
	svc := &service{}
	svc.arrange(in, backends, nil)
	return svc
}

// Over any stretch of as many requests as the weights add up to, each backend gets
// exactly its weight, wherever the stretch begins.
func TestWeightsAreExact(t *testing.T) {
	for _, c := range []struct {
		releases string
		weights  []int
		sum      int // of the reduced weights
	}{
		{"a", []int{7}, 1}, {"aa", []int{1, 1}, 2}, {"ab", []int{90, 10}, 10}, {"ab", []int{95, 5}, 20}, {"ab", []int{99, 1}, 100},
		{"ab", []int{0, 100}, 1}, {"ab", []int{100, 0}, 1}, {"aab", []int{1, 1, 2}, 4}, {"aaab", []int{33, 33, 33, 1}, 300}, {"abcd", []int{1, 2, 3, 4}, 10},
	} {
		svc := weighed(nil, c.releases, c.weights...)
		total := 0
		for _, w := range c.weights {
			total += w
		}
		for round := range 5 {
			for range round { // so that stretches begin anywhere
				svc.take(nil, nil)
			}
			got := map[string]int{}
			for range c.sum {
				b, _, _ := svc.take(nil, nil)
				got[b.id]++
			}
			for i, w := range c.weights {
				if want := w * c.sum / total; got[fmt.Sprint(i)] != want {
					t.Errorf("weights %v of %s: backend %d got %d of %d, want %d", c.weights, c.releases, i, got[fmt.Sprint(i)], c.sum, want)
				}
			}
		}
	}
}

// A share comes evenly, not all at the end of the stretch.
func TestWeightsAreEven(t *testing.T) {
	svc := weighed(nil, "ab", 95, 5)
	gap := 0
	for range 1000 {
		if b, _, _ := svc.take(nil, nil); b.id == "1" {
			gap = 0
		} else if gap++; gap > 30 {
			t.Fatalf("%d requests in a row without one of every twentieth", gap)
		}
	}
}

func TestTakeSaysWhenTheSnapshotIsStale(t *testing.T) {
	svc := weighed(nil, "a", 1)
	b := svc.groups[0].backends[0]
	b.shut()
	if got, _, stale := svc.take(nil, nil); got != nil || !stale {
		t.Errorf("shut backend: %v, stale %v", got, stale)
	}
	b.open()
	b.down()
	if got, _, _ := svc.take(nil, nil); got != b {
		t.Error("a backend that could not be reached is not even the last choice")
	}
	if got, _, stale := svc.take(nil, []*backend{b}); got != nil || stale {
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
		"tcp":                  func(_ *rollout.Table, s *rollout.Service) { s.Path, s.TCP = "", 6379 },
		"endless stream drain": func(_ *rollout.Table, s *rollout.Service) { s.Drains.Stream = 100 * time.Hour },
		"match by both": func(_ *rollout.Table, s *rollout.Service) {
			s.Match = &rollout.Match{Header: "A", Cookie: "b", Value: "1", Release: "r"}
		},
		"match by none": func(_ *rollout.Table, s *rollout.Service) { s.Match = &rollout.Match{Value: "1", Release: "r"} },
		"match by host": func(_ *rollout.Table, s *rollout.Service) {
			s.Match = &rollout.Match{Header: "host", Value: "1", Release: "r"}
		},
		"match with a newline": func(_ *rollout.Table, s *rollout.Service) {
			s.Match = &rollout.Match{Header: "A", Value: "1\r\nB: 2", Release: "r"}
		},
		"match of a bad name": func(_ *rollout.Table, s *rollout.Service) {
			s.Match = &rollout.Match{Header: "A b", Value: "1", Release: "r"}
		},
		"match of no value":   func(_ *rollout.Table, s *rollout.Service) { s.Match = &rollout.Match{Header: "A", Release: "r"} },
		"match of no release": func(_ *rollout.Table, s *rollout.Service) { s.Match = &rollout.Match{Header: "A", Value: "1"} },
		"a cookie's value": func(_ *rollout.Table, s *rollout.Service) {
			s.Match = &rollout.Match{Cookie: "A", Value: "1;2", Release: "r"}
		},
		"sticky without a name": func(_ *rollout.Table, s *rollout.Service) { s.Sticky = "a=b"; s.Backends[0].Release = "r" },
		"sticky, no release":    func(_ *rollout.Table, s *rollout.Service) { s.Sticky = "a" },
		"sticky, odd release":   func(_ *rollout.Table, s *rollout.Service) { s.Sticky = "a"; s.Backends[0].Release = "r;x" },
		"ID with a newline":     func(_ *rollout.Table, s *rollout.Service) { s.Backends[0].ID = "a\nb" },
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
