package nft

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// Check is one thing that this host can or cannot do for TCP services.
type Check struct {
	Name   string
	OK     bool
	Detail string
	Fix    string
}

// Support examines the host. It changes nothing that stays: the rules are tried in a
// network namespace that goes at once.
func Support() []Check {
	return []Check{checkRules(), checkTracking()}
}

func checkRules() Check {
	c := Check{
		Name: "tcp services", OK: true, Detail: "the kernel's packet filter translates addresses by maps and rejects with resets",
		Fix: "run the server as root, on a kernel with nf_tables and its parts nat, numgen, fib, reject and ct, version 6.12 or newer",
	}
	if err := inNamespace(tryRules); err != nil {
		c.OK, c.Detail = false, fmt.Sprintf("services with a tcp route cannot be served: %v", err)
	}
	return c
}

// tryRules commits every kind of rule that a server uses.
func tryRules() error {
	book := &addresses{Block: netip.PrefixFrom(Pool.Addr(), blockBits)}
	var k kernel
	defer k.end()
	rules := newRuleset(&k, &nftables.Table{Name: "ashlar-check", Family: nftables.TableFamilyIPv4}, "ash-check", book)
	b, err := k.begin()
	if err != nil {
		return err
	}
	rules.add(b)
	at := netip.AddrPortFrom(book.lower().Addr().Next(), 1)
	open := service{name: "open", at: at, backends: []backend{{"a", at, 1}, {"b", at, 2}}}
	waits := service{name: "waits", at: netip.AddrPortFrom(at.Addr(), 2), hold: time.Second}
	for _, s := range []service{open, waits} {
		rules.addService(b, rollout.Key{}, placed{name: s.name, at: s.at, turn: "a", waits: s.waits()}, s)
	}
	return b.commit()
}

func checkTracking() Check {
	c := Check{Name: "connection tracking", OK: true, Fix: "load the kernel modules nf_conntrack and nf_conntrack_netlink"}
	if _, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET); err != nil {
		c.OK, c.Detail = false, fmt.Sprintf("connections to tcp services cannot be counted: %v", err)
		return c
	}
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
	if err != nil {
		c.Detail = "connections can be counted"
		return c
	}
	c.Detail = fmt.Sprintf("connections can be counted, at most %s at a time (net.netfilter.nf_conntrack_max)", strings.TrimSpace(string(b)))
	return c
}

// inNamespace calls do in a network namespace that goes at once.
func inNamespace(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends, and its namespace with it
		ns, err := netns.New()
		if err != nil {
			done <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		defer ns.Close() //nolint:errcheck // nothing was written
		done <- do()
	}()
	return <-done
}
