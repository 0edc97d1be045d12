package local

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/ashlar-infra/ashlar/internal/fault"
)

// innerLink is the name of an instance's network link, as it sees it.
const innerLink = "eth0"

// linkName is the name of the host's end of an instance's link: at most 15 bytes, unique per server and instance.
func (p *Platform) linkName(id string) string {
	sum := sha256.Sum256([]byte(p.cfg.RunDir + "\x00" + id))
	return "ash" + hex.EncodeToString(sum[:6])
}

// attach connects the network namespace of a process to the bridge. The only
// routes that the process gets are the loopback, the subnet and the services.
func (n *network) attach(pid int, name string, addr netip.Addr) error {
	err := n.link(pid, name, addr)
	if err != nil {
		return fault.New(fault.Unavailable, "connect the instance to the network bridge %s: %w", n.bridge, err)
	}
	return nil
}

func (n *network) link(pid int, name string, addr netip.Addr) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("open its network namespace: %w", err)
	}
	defer ns.Close() //nolint:errcheck // nothing was written
	bridge, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.Flags = name, bridge.Attrs().Index, net.FlagUp
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: innerLink, PeerHardwareAddr: hardwareAddr(addr), PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make the link %s: %w", name, err)
	}
	if err := netlink.LinkSetHairpin(veth, true); err != nil { // an instance may be the one behind a service that it calls
		return fmt.Errorf("let the link %s answer itself: %w", name, err)
	}
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	eth, err := inside.LinkByName(innerLink)
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(addr, n.subnet.Bits())}); err != nil {
		return fmt.Errorf("give it %s: %w", addr, err)
	}
	if err := inside.LinkSetUp(eth); err != nil || !n.beyond.IsValid() {
		return err
	}
	return inside.RouteAdd(&netlink.Route{Dst: ipNet(n.beyond.Addr(), n.beyond.Bits()), Gw: n.gateway().AsSlice()})
}

// hardwareAddr follows from the address, so that the bridge's neighbour table
// stays true when another instance gets the address.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]} // locally administered
}
