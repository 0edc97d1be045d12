package nft

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/ashlar-infra/ashlar/internal/fault"
	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// adjust sets what the services in force need of the host: the bridge forwards; it takes packets
// from loopback addresses if a service has one; and links forward over which others
// reach a service's address. Such a link forwards nothing else (ruleset.go), and stops when
// no service needs it any more.
func (r *Router) adjust(rules *ruleset, key rollout.Key, env environment) error {
	listens, err := r.listens(rules, key, env)
	if err != nil {
		return err
	}
	local := "0"
	outer := slices.DeleteFunc(slices.Clone(listens), func(at netip.AddrPort) bool { return at.Addr().IsLoopback() })
	if len(outer) < len(listens) || slices.ContainsFunc(outer, func(at netip.AddrPort) bool { return at.Addr().IsUnspecified() }) {
		local = "1"
	}
	for name, value := range map[string]string{"forwarding": "1", "route_localnet": local} {
		if _, err := set(r.cfg.Bridge, name, value); err != nil {
			return err
		}
	}
	want, err := outerLinks(outer, r.cfg.Bridge)
	if err != nil {
		return err
	}
	return r.open(rules, want)
}

// open makes these links forward, and no others because of us. A link that the host
// lets forward by itself is left alone.
func (r *Router) open(rules *ruleset, want []string) error {
	have, err := rules.links()
	if err != nil {
		return unable("read the kernel's tables", err)
	}
	b, err := rules.kernel.begin()
	if err != nil {
		return unable("talk to the kernel", err)
	}
	var fresh, gone []string
	for _, link := range want {
		on, err := readSetting(link, "forwarding")
		if err != nil {
			return unable("read the settings of "+link, err)
		}
		if on == "0" && !slices.Contains(have, link) {
			fresh = append(fresh, link)
			b.elements(rules.opened, []nftables.SetElement{{Key: linkBytes(link)}})
		}
	}
	for _, link := range have {
		if !slices.Contains(want, link) {
			gone = append(gone, link)
			b.remove(rules.opened, []nftables.SetElement{{Key: linkBytes(link)}})
		}
	}
	for _, link := range gone { // closed before its guard goes
		if _, err := set(link, "forwarding", "0"); err != nil {
			return err
		}
	}
	if err := b.commit(); err != nil {
		return unable("change the kernel's routes", err)
	}
	for _, link := range append(fresh, have...) {
		if slices.Contains(gone, link) {
			continue
		}
		if _, err := set(link, "forwarding", "1"); err != nil {
			return err
		}
	}
	return nil
}

// listens gives the addresses on the host of all services in force, env's among them.
func (r *Router) listens(rules *ruleset, key rollout.Key, env environment) ([]netip.AddrPort, error) {
	all, err := r.others(rules, key)
	var out []netip.AddrPort
	for _, p := range append(all, env.services...) {
		if p.listen.IsValid() {
			out = append(out, p.listen)
		}
	}
	return out, err
}

// refuseTaken refuses an address on the host that another environment's service has, or
// a program: connections would silently go elsewhere from now on.
func (r *Router) refuseTaken(rules *ruleset, key rollout.Key, prev environment, services []service) error {
	var fresh []service
	for _, s := range services {
		if p, known := prev.service(s.name); s.listen.IsValid() && !(known && p.listen == s.listen) {
			fresh = append(fresh, s)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	others, err := r.others(rules, key)
	if err != nil {
		return err
	}
	for i, s := range fresh {
		where := key.String() + "/" + s.name
		for _, o := range append(others, pairs(key, fresh[:i])...) {
			if o.listen.Port() == s.listen.Port() && (o.listen.Addr() == s.listen.Addr() || o.listen.Addr().IsUnspecified() || s.listen.Addr().IsUnspecified()) {
				return fault.New(fault.Conflict, "the address %s is that of %s", s.listen, o.name).At(where).Mend("choose another for one of them")
			}
		}
		own := slices.ContainsFunc(prev.services, func(p placed) bool { return p.listen.Port() == s.listen.Port() })
		if err := free(s.listen); err != nil && !own {
			return fault.New(fault.Conflict, "the address %s cannot be used: %w", s.listen, err).At(where).
				Mend("see who has it:  ss -ltnp  or choose another")
		}
	}
	return nil
}

// others gives the services of the other environments that have an address on the host.
func (r *Router) others(rules *ruleset, key rollout.Key) ([]placed, error) {
	var out []placed
	for _, text := range r.book.Routed {
		if text == key.String() {
			continue
		}
		_, services, err := rules.readServices(parseKey(text))
		if err != nil {
			return nil, unable("read the kernel's routes", err)
		}
		for _, p := range services {
			if p.listen.IsValid() {
				p.name = text + "/" + p.name
				out = append(out, p)
			}
		}
	}
	return out, nil
}

func pairs(key rollout.Key, services []service) []placed {
	var out []placed
	for _, s := range services {
		out = append(out, placed{name: key.String() + "/" + s.name, listen: s.listen})
	}
	return out
}

// free says why an address cannot be had: a program has it, or it is not the host's.
func free(at netip.AddrPort) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", at.String())
	if err != nil {
		return err
	}
	return l.Close()
}
