package nft

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"

	"github.com/ashlar-infra/ashlar/internal/rollout"
)

// read asks the kernel for an environment. What this process wrote itself it need not read
// again, as long as the kernel has the stamp that was written with it.
func (r *Router) read(rules *ruleset, key rollout.Key) (environment, error) {
	s, _, err := rules.readServices(key)
	if err == nil && s != (stamp{}) && r.known[key].stamp == s {
		return r.known[key], nil
	}
	return rules.read(key)
}

// replace puts an environment's services in force, in one transaction that is as short
// as can be: before it the register gets the backends that will serve, and after it, it is told which
// of the others leave. What a crash leaves out of the last is made up for by repair.
func (r *Router) replace(rules *ruleset, key rollout.Key, prev environment, to stamp, services []service) (environment, error) {
	next := environment{stamp: to, members: succeed(prev.members, services, r.cfg.Now())}
	if err := r.announce(rules, key, prev, next); err != nil {
		return next, err
	}
	b, err := rules.kernel.begin()
	if err != nil {
		return next, unable("talk to the kernel", err)
	}
	next.services = rules.rewrite(b, key, prev, services)
	rules.note(b, key, next)
	began := r.cfg.Now()
	if err := b.commit(); err != nil {
		return next, unable("change the kernel's routes", err)
	}
	r.took = r.cfg.Now().Sub(began)
	return next, r.noteMembers(rules, key, environment{members: arriving(prev, next)}, next)
}

// announce makes what the environment needs in the kernel, and enters the backends that will serve.
func (r *Router) announce(rules *ruleset, key rollout.Key, prev, next environment) error {
	there, err := rules.present()
	if err != nil {
		return unable("read the kernel's tables", err)
	}
	b, err := rules.kernel.begin()
	if err != nil {
		return unable("talk to the kernel", err)
	}
	if !there {
		rules.add(b)
	}
	if prev.stamp == (stamp{}) {
		b.AddChain(&nftables.Chain{Table: rules.table, Name: registerName(key)})
		b.addSet(rules.register(key), nil)
		b.FlushSet(rules.register(key)) // of one who was killed here
	}
	rules.noteMembers(b, key, prev.members, arriving(prev, next))
	if err := b.commit(); err != nil {
		return unable("change the kernel's tables", err)
	}
	delete(r.known, key) // until all is done
	return nil
}

// arriving are the backends of before with those that serve from now on.
func arriving(prev, next environment) map[netip.AddrPort]member {
	out := maps.Clone(prev.members)
	for at, m := range next.members {
		if m.till.IsZero() {
			out[at] = m
		}
	}
	return out
}

// noteMembers writes the register's backends, which no packet waits for.
func (r *Router) noteMembers(rules *ruleset, key rollout.Key, prev, next environment) error {
	b, err := rules.kernel.begin()
	if err != nil {
		return unable("talk to the kernel", err)
	}
	rules.noteMembers(b, key, prev.members, next.members)
	if err := b.commit(); err != nil {
		return unable("change the kernel's tables", err)
	}
	r.known[key] = next
	return nil
}

// repairAll repairs every environment. What fails shows at the next look.
func (r *Router) repairAll() {
	for _, text := range r.book.Routed {
		rules := newRuleset(&r.kernel, r.table, r.cfg.Bridge, r.book)
		env, err := rules.read(parseKey(text))
		if err == nil && env.stamp != (stamp{}) {
			err = r.repair(rules, parseKey(text), env)
		}
		if err != nil {
			r.cfg.Log.Warn("cannot look after what another server left", "env", text, "err", err)
		}
	}
}

// repair makes up for a server that was killed between a change and its last note: a backend that
// the register has as serving, and that no service has, leaves from now on.
func (r *Router) repair(rules *ruleset, key rollout.Key, env environment) error {
	in, err := rules.inForce(key, env.services)
	if err != nil {
		return unable("read the kernel's routes", err)
	}
	next := env
	next.members = maps.Clone(env.members)
	for at, m := range env.members {
		if m.till.IsZero() && !m.rests && !in[at] {
			m.till = r.cfg.Now().UTC().Round(0).Add(m.drain)
			next.members[at] = m
		}
	}
	if maps.Equal(env.members, next.members) {
		return nil
	}
	return r.noteMembers(rules, key, env, next)
}

// rewrite turns the services of prev into those that are wanted.
func (r *ruleset) rewrite(b *batch, key rollout.Key, prev environment, services []service) []placed {
	var out []placed
	for _, was := range prev.services {
		if i := slices.IndexFunc(services, func(s service) bool { return s.name == was.name && s.at == was.at }); i < 0 {
			r.removeService(b, key, was)
		}
	}
	for _, s := range services {
		p := placed{name: s.name, at: s.at, listen: s.listen, turn: "a", waits: s.waits(), digest: s.digest}
		was, known := prev.service(s.name)
		switch {
		case !known || was.at != s.at:
			r.addService(b, key, p, s)
		case was.digest == s.digest:
			p = was
		default:
			p.turn = was.next()
			r.changeService(b, key, was, p, s)
		}
		out = append(out, p)
	}
	return out
}
