package local

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

func TestServersOfOneHostHaveSubnetsOfTheirOwn(t *testing.T) {
	a, b := newWorld(t), newWorld(t)
	a.start("plain", spec("plain"))
	b.start("plain", spec("plain"))
	if a.network.subnet.Overlaps(b.network.subnet) {
		t.Errorf("%s and %s", a.network.subnet, b.network.subnet)
	}
	before := a.network.subnet
	a.reopen(t)
	if a.network.subnet != before {
		t.Errorf("was %s, is %s", before, a.network.subnet)
	}
	a.start("serves", spec("serves", serving))
	a.untilPhase("serves", rollout.Ready)
}

func TestSubnetThatTheHostUses(t *testing.T) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		t.Fatal(err)
	}
	lo, _ := netip.AddrFromSlice(addrs[0].IP.To4())
	w := newWorld(t, func(c *Config) { c.Subnet = netip.PrefixFrom(lo, 24) })
	err = w.Start(t.Context(), env, order("plain"), spec("plain"))
	if f := fault.Of(err); f == nil || f.Kind != fault.Conflict {
		t.Errorf("error %v", err)
	}
}

func TestAddressesRest(t *testing.T) {
	n, err := openNetwork(filepath.Join(t.TempDir()), "lo", netip.MustParsePrefix("192.0.3.0/29"))
	if err != nil {
		t.Fatal(err)
	}
	n.up = true // the bridge is somebody else's matter here
	take := func() string {
		a, err := n.take()
		if err != nil {
			return "none"
		}
		return a.String()
	}
	var got []string
	for range 3 {
		got = append(got, take())
	}
	n.release(netip.MustParseAddr(got[0]))
	got = append(got, take(), take(), take(), take())
	want := []string{"192.0.3.2", "192.0.3.3", "192.0.3.4", "192.0.3.5", "192.0.3.6", "192.0.3.2", "none"}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestPeersHaveNames(t *testing.T) {
	p := &Platform{cfg: Config{Peers: func(k rollout.Key) map[string]netip.Addr {
		return map[string]netip.Addr{"web": netip.MustParseAddr("10.214.0.2"), "redis": netip.MustParseAddr("10.214.0.1"), k.Env: netip.MustParseAddr("10.214.0.3")}
	}}}
	m := meta{Key: rollout.Key{App: "shop", Env: "production"}, Instance: rollout.Instance{Component: "web"}, Address: netip.MustParseAddr("10.213.0.2")}
	want := "127.0.0.1 localhost\n::1 localhost\n10.213.0.2 web\n10.214.0.3 production\n10.214.0.1 redis\n"
	if got := string(p.hosts(m)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
