package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// What the host needs beside the ruleset: the services' addresses are its own (one route of
// type local for all of them), the bridge may forward, and where a service has an address on
// the host, the link with that address too.

// localRoute makes every address of the prefix one of the host's.
func localRoute(p netip.Prefix) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	return &netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
		Scope: netlink.SCOPE_HOST, Protocol: unix.RTPROT_STATIC,
	}, nil
}

func addLocalRoute(p netip.Prefix) error {
	r, err := localRoute(p)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(r)
}

func removeLocalRoute(p netip.Prefix) error {
	r, err := localRoute(p)
	if err != nil {
		return err
	}
	if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route to %s: %w", p, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// usedPrefixes lists the host's IPv4 addresses and routes, but the default route and
// those within own.
func usedPrefixes(own netip.Prefix) ([]netip.Prefix, error) {
	var out []netip.Prefix
	add := func(n *net.IPNet) {
		if n == nil {
			return
		}
		at, ok := netip.AddrFromSlice(n.IP.To4())
		ones, _ := n.Mask.Size()
		if p := netip.PrefixFrom(at, ones).Masked(); ok && ones > 0 && !(own.IsValid() && p == own) {
			out = append(out, p)
		}
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	for _, a := range addrs {
		add(a.IPNet)
	}
	for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
		routes, e := dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		err = errors.Join(err, e)
		for _, r := range routes {
			if r.Type != unix.RTN_BROADCAST {
				add(r.Dst)
			}
		}
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read the host's addresses and routes: %w", err)
	}
	return out, nil
}

// lockHost holds off the other servers of this host while one settles its block.
func lockHost() (unlock func(), err error) {
	f, err := os.Open("/sys/class/net")
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "lock the host's network: %w", err)
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// setting is one of the kernel's settings of a network link.
func setting(link, name string) string { return filepath.Join("/proc/sys/net/ipv4/conf", link, name) }

// readSetting gives a link's setting; empty if there is no such link.
func readSetting(link, name string) (string, error) {
	b, err := os.ReadFile(setting(link, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// set changes a link's setting if it is another. A link that is not there is no error: a
// service may be there before the first instance, whose start makes the bridge.
func set(link, name, value string) (changed bool, err error) {
	have, err := readSetting(link, name)
	if err == nil && (have == value || have == "") {
		return false, nil
	}
	if err == nil {
		err = os.WriteFile(setting(link, name), []byte(value), 0)
	}
	if err != nil {
		return false, fault.New(fault.Unavailable, "set %s of network link %s: %w", name, link, err).
			At(setting(link, name)).Mend("the server needs root, and a writable /proc/sys/net")
	}
	return true, nil
}

// outerLinks are the links over which others reach one of the addresses: not the loopback, not
// a bridge of instances.
func outerLinks(listens []netip.AddrPort, bridge string) ([]string, error) {
	var out []string
	if len(listens) == 0 {
		return nil, nil
	}
	kin, _, _ := strings.Cut(bridge, "-")
	links, err := dump(netlink.LinkList)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list the host's network links: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 || strings.HasPrefix(l.Attrs().Name, kin+"-") {
			continue
		}
		addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V4) })
		if err != nil {
			return nil, fault.New(fault.Unavailable, "list the host's addresses: %w", err)
		}
		if reaches(addrs, listens) {
			out = append(out, l.Attrs().Name)
		}
	}
	return out, nil
}

func reaches(addrs []netlink.Addr, listens []netip.AddrPort) bool {
	for _, a := range addrs {
		at, _ := netip.AddrFromSlice(a.IP.To4())
		for _, l := range listens {
			if l.Addr().IsUnspecified() || l.Addr() == at {
				return true
			}
		}
	}
	return false
}

// dump lists what the kernel has, again if it changed meanwhile: on a host where links
// come and go, one listing may be cut in two by a change (NLM_F_DUMP_INTR, netlink(7)).
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumps {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// dumps is how often a listing is tried.
const dumps = 20
