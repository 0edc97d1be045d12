package nft

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestWhatCannotBeRouted(t *testing.T) {
	good := rollout.Backend{ID: "a", Address: "10.213.0.2:1", Weight: 1}
	for want, s := range map[string]rollout.Service{
		"no TCP port":               {TCP: 70000},
		"TCP services speak IPv4":   {TCP: 1, Listen: "[::1]:6379"},
		"port 0":                    {TCP: 1, Listen: "127.0.0.1:0"},
		"not an address and a port": {TCP: 1, Listen: "localhost"},
		"not an IPv4 address":       {TCP: 1, Backends: []rollout.Backend{{ID: "a", Address: "redis:1", Weight: 1}}},
		"has the weight -1":         {TCP: 1, Backends: []rollout.Backend{{ID: "a", Address: "10.0.0.1:1", Weight: -1}}},
		"together":                  {TCP: 1, Backends: []rollout.Backend{{ID: "a", Address: "10.0.0.1:1", Weight: maxWeights + 1}}},
		"cannot be named":           {TCP: 1, Backends: []rollout.Backend{{ID: strings.Repeat("a", 300), Address: "10.0.0.1:1", Weight: 1}}},
		"have the same address":     {TCP: 1, Backends: []rollout.Backend{good, {ID: "b", Address: good.Address}}},
	} {
		s.Name = "redis"
		_, err := tcpServices(production, rollout.Table{Services: []rollout.Service{s}})
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || !strings.Contains(f.What, want) || !strings.HasSuffix(f.Where, "/redis") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestShares(t *testing.T) {
	for want, weights := range map[string][]int{
		"turn 0 []":      {},
		"turn 0 [] ":     {0, 0},
		"turn 1 [0]":     {100},
		"turn 2 [0 1]":   {7, 7},
		"turn 4 [0 3]":   {30, 10, 0},
		"turn 100 [0 1]": {1, 0, 99},
	} {
		var backends []backend
		for _, w := range weights {
			backends = append(backends, backend{weight: w})
		}
		parts, turn := shares(backends)
		begin := []uint32{}
		for _, p := range parts {
			begin = append(begin, p.from)
		}
		if got := fmt.Sprintf("turn %d %v", turn, begin); got != strings.TrimSpace(want) {
			t.Errorf("%v: got %s, want %s", weights, got, want)
		}
	}
}

func TestAddressesLast(t *testing.T) {
	dir := t.TempDir()
	open := func() *addresses {
		a, err := openAddresses(dir)
		must(t, err)
		return a
	}
	a := open()
	a.Block = netip.MustParsePrefix("10.214.32.0/19")
	first, err := a.take(production, []string{"redis", "db"})
	must(t, err)
	staging, err := open().take(rollout.Key{App: "shop", Env: "staging"}, []string{"redis"})
	must(t, err)
	again, err := open().take(production, []string{"db", "redis", "queue"})
	must(t, err)
	if again["db"] != first["db"] || again["redis"] != first["redis"] {
		t.Errorf("were %v, are %v", first, again)
	}
	seen := map[netip.Addr]bool{}
	for _, at := range []netip.Addr{again["db"], again["redis"], again["queue"], staging["redis"]} {
		if seen[at] || !open().lower().Contains(at) || open().upper().Contains(at) {
			t.Errorf("address %s", at)
		}
		seen[at] = true
	}
	must(t, a.route(production, true))
	if b := open(); !b.routed(production) || b.routed(rollout.Key{App: "shop"}) {
		t.Errorf("routed: %v", b.Routed)
	}
	names := make([]string, 5000)
	for i := range names {
		names[i] = fmt.Sprint("s", i)
	}
	if _, err := open().take(production, names); fault.Of(err) == nil || fault.Of(err).Kind != fault.Unavailable {
		t.Errorf("more services than addresses: %v", err)
	}
}

func FuzzAddresses(f *testing.F) {
	f.Add([]byte(`{"block":"10.214.0.0/19","services":{"a/b/c":"10.214.0.1"},"routed":["a/b"]}`))
	f.Add([]byte(`{"block":"10.214.0.0/33"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &addresses{file: t.TempDir() + "/services.json"}
		if a.parse(data) != nil || !a.Block.IsValid() {
			return
		}
		if got, err := a.take(production, []string{"x"}); err == nil && !a.lower().Contains(got["x"]) {
			t.Errorf("%v gives %v", a.Block, got)
		}
	})
}

func TestFreeBlock(t *testing.T) {
	first := freeBlock(nil)
	second := freeBlock([]netip.Prefix{netip.MustParsePrefix("10.214.0.0/20")})
	if first.String() != "10.214.0.0/19" || second.String() != "10.214.32.0/19" {
		t.Errorf("%s, then %s", first, second)
	}
	if none := freeBlock([]netip.Prefix{Pool}); none.IsValid() {
		t.Errorf("a full pool gives %s", none)
	}
}
