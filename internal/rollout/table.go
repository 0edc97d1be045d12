package rollout

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// route asks for a new table when the one that should be served differs from the
// one last asked for, and repeats the last one until it is acknowledged.
func (d *decider) route() {
	desired := d.table()
	desired.Generation = d.s.Table.Generation
	ahead := d.o.Router.Generation > d.s.Table.Generation // the state is older than the router: it was restored from a backup
	if ahead || !sameRoutes(desired, d.s.Table) {
		desired.Generation = max(d.s.Table.Generation, d.o.Router.Generation) + 1
		d.keepDrains(desired)
		d.s.Table = desired
		d.event(Event{Kind: "routes.ordered", Data: map[string]string{
			"generation": strconv.FormatInt(desired.Generation, 10), "backends": backendWords(desired),
		}})
	}
	if d.o.Router.Generation != d.s.Table.Generation {
		d.do = append([]Action{ApplyTable{d.s.Table}}, d.do...)
		d.wakeAt(d.now.Add(routePoll))
	}
}

// keepDrains gives each routed order the drain time of the table it is in: that is
// what its requests are promised when it leaves, whichever release ordered it. As
// long as the new table is not known to be served, the promise of the one before it
// may be the one that holds: the longer counts.
func (d *decider) keepDrains(t Table) {
	before, after := d.s.Table.drains(), t.drains()
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		was := before[o.ID]
		if !d.acknowledged() {
			was = max(was, o.Drain)
		}
		if drain, routed := after[o.ID]; routed {
			o.Drain = max(drain, was)
		}
	}
}

// drains are the drain times of the backends.
func (t Table) drains() map[string]time.Duration {
	out := map[string]time.Duration{}
	for _, s := range t.Services {
		for _, b := range s.Backends {
			out[b.ID] = s.longest()
		}
	}
	return out
}

// longest is how long anything may go on once a backend left the service.
func (s Service) longest() time.Duration { return s.Drains.longest(s.Drain) }

func (x Drains) longest(otherwise time.Duration) time.Duration {
	return max(otherwise, x.Request, x.WebSocket, x.Stream, x.GRPC, x.TCP)
}

// declared is the target whose address and routes hold now. They change with the
// switch and not before; the very first are there from the beginning, so that
// requests wait and an address that is in use is found out early.
func (d *decider) declared() *Target {
	r := d.s.Rollout
	switch {
	case r == nil:
		return d.s.Current
	case r.Step == Reverting:
		return r.From
	case r.From == nil || r.Step != Laying && r.Step != Shifting:
		return &r.To
	default:
		return r.From
	}
}

// table computes the routes that should be served now.
func (d *decider) table() Table {
	var table Table
	t := d.declared()
	if t == nil {
		return table
	}
	table.Listen, table.TLS = t.Listen, t.TLS
	for i := range t.Components {
		if c := &t.Components[i]; c.Route != nil {
			svc := serviceOf(c)
			d.fill(&svc, c)
			table.Services = append(table.Services, svc)
		}
	}
	if r := d.s.Rollout; r != nil {
		if more := d.previews(r); more != nil {
			table.Services = append(table.Services, more...)
			slices.SortFunc(table.Services, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	return table
}

func serviceOf(c *Component) Service {
	return Service{
		Name: c.Name, Host: c.Route.Host, Path: c.Route.Path, TCP: c.Route.TCP, Listen: c.Route.Listen,
		Hold: c.Route.Hold, Drain: c.Drain, Drains: c.Route.Drains,
	}
}

// fill gives a service of the declared target its backends.
func (d *decider) fill(svc *Service, c *Component) {
	r := d.s.Rollout
	if r == nil {
		svc.Backends = d.backends(c, "")
		return
	}
	from, to := r.From.named(c.Name), r.To.named(c.Name)
	switch {
	case r.From == nil && r.Step == Laying && !d.early(r, c):
		// held
	case from == nil || to == nil || how(r, c.Name) == carried:
		svc.Backends = d.backends(c, "")
	default:
		older := d.backends(from, "")
		var newer []Backend
		if to.Route != nil {
			newer = d.backends(to, Short(r.To.Release))
		}
		d.divide(svc, r, older, newer)
	}
	slices.SortFunc(svc.Backends, func(a, b Backend) int { return strings.Compare(a.ID, b.ID) })
}

// divide gives a service that changes its share of either side.
func (d *decider) divide(svc *Service, r *Rollout, older, newer []Backend) {
	if how(r, svc.Name) != beside {
		svc.Backends = append(older, newer...)
		return
	}
	share := d.share(r, svc.Name)
	svc.Backends = weigh(older, newer, share)
	if r.Step == Shifting && share > 0 {
		svc.Sticky = r.To.Strategy.Sticky
		if m := r.To.Strategy.Match; m != nil && len(newer) > 0 {
			svc.Match = &Match{Header: m.Header, Cookie: m.Cookie, Value: m.Value, Release: Short(r.To.Release)}
		}
	}
}

// early says whether a component of the very first release is reachable before the
// rest is ready: others of it need it, by its own address.
func (d *decider) early(r *Rollout, c *Component) bool {
	turns := d.turns(r)
	if c.Route.TCP == 0 || len(turns) == 0 {
		return false
	}
	return !slices.Contains(turns[len(turns)-1], c.Name)
}

// share is the percentage of a component's requests that the new instances get
// beside the old ones.
func (d *decider) share(r *Rollout, component string) int {
	switch r.Step {
	case Laying:
		return 0
	case Shifting:
		return r.Share
	case Reverting:
		return d.shareBack(r, component)
	default:
		return 100
	}
}

// shareBack is what is left to the new instances of a rollout that is put back:
// what the old ones cannot carry yet, as they may have lost some since the switch.
// That is not waited for without end.
func (d *decider) shareBack(r *Rollout, component string) int {
	c := r.From.named(component)
	if c == nil || r.Share == 0 {
		return 0
	}
	end := r.StepAt.Add(max(revertPatience, c.Start))
	need, can := min(c.Replicas, d.serves(component)), d.canServe(*c)
	if can >= need || !d.now.Before(end) {
		return 0
	}
	d.wakeAt(end)
	return min(r.Share, (100*(need-can)+need-1)/need)
}

// canServe counts the instances of a component that may be routed.
func (d *decider) canServe(c Component) int {
	n := 0
	for _, o := range d.of(c.Name, c.Spec) {
		if d.routable(o) {
			n++
		}
	}
	return n
}

// serves counts the instances behind a service of the table last asked for that
// can still serve.
func (d *decider) serves(service string) int {
	n := 0
	for i := range d.s.Instances {
		o := &d.s.Instances[i]
		if o.Component == service && !o.Leaving && d.routable(o) && d.inTable(o.ID) {
			n++
		}
	}
	return n
}

// backends lists the instances of a component that may receive requests, as one
// group, or by the releases that ordered them when no name is given.
func (d *decider) backends(c *Component, group string) []Backend {
	var out []Backend
	for _, o := range d.of(c.Name, c.Spec) {
		if d.routable(o) {
			out = append(out, Backend{ID: o.ID, Address: d.seen[o.ID].Address, Weight: 1, Release: cmp.Or(group, Short(o.Release))})
		}
	}
	slices.SortFunc(out, func(a, b Backend) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// routable says whether an instance may receive requests: it is ready, or it was
// and nobody has looked again yet since the server came back.
func (d *decider) routable(o *Order) bool {
	phase := d.phase(o.ID)
	return phase == Ready || phase == Unknown && o.Served && o.Unready.IsZero()
}

func sameRoutes(a, b Table) bool {
	return a.Listen == b.Listen && reflect.DeepEqual(a.TLS, b.TLS) && slices.EqualFunc(a.Services, b.Services, func(x, y Service) bool {
		if !slices.Equal(x.Backends, y.Backends) {
			return false
		}
		x.Backends, y.Backends = nil, nil
		return reflect.DeepEqual(x, y)
	})
}

func backendWords(t Table) string {
	var ids []string
	for _, s := range t.Services {
		for _, b := range s.Backends {
			ids = append(ids, b.ID)
		}
	}
	return strings.Join(ids, " ")
}
